"""Reads server-sent events by `httpx-sse` until one says `over`, and acknowledges each when it has come: peers/api sends none before.

stdin: {"base", "token", "ca"}; stdout: {"status", "type", "events": [[event, id, data, retry]]}
"""

import json
import ssl
import sys
import uuid

import httpx
from httpx_sse import connect_sse

job = json.load(sys.stdin)
run = uuid.uuid4().hex
headers = {"Authorization": f"Bearer {job['token']}"}
context = ssl.create_default_context(cafile=job["ca"])
with httpx.Client(verify=context, trust_env=False, timeout=60, headers=headers) as client:
    with connect_sse(client, "GET", f"{job['base']}/events?run={run}") as source:
        events = []
        for it in source.iter_sse():
            events.append([it.event, it.id, it.data, it.retry])
            if it.data == "over":
                break
            client.get(f"{job['base']}/seen?run={run}&n={it.id}").raise_for_status()
        print(json.dumps({"status": source.response.status_code, "type": source.response.headers["content-type"], "events": events}))
