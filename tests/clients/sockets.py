"""A conversation over a WebSocket of peers/api by `websockets`.

stdin: {"base", "token", "ca"}; stdout: what was opened, each message that came back, and how each side's close arrived at the other.
"""

import asyncio
import hashlib
import json
import ssl
import sys
import uuid

import websockets
import httpx


def told(message):
    if isinstance(message, str) and len(message) < 2000:
        return message
    data = message.encode() if isinstance(message, str) else message
    return [type(message).__name__, len(data), hashlib.sha256(data).hexdigest()]


async def main(job) -> dict:
    context = ssl.create_default_context(cafile=job["ca"])
    headers = {"Authorization": f"Bearer {job['token']}", "X-Own": "stays"}
    run = uuid.uuid4().hex
    address = job["base"].replace("http", "ws", 1) + "/socket?x=%20y&run="
    secure = {"ssl": context} if address.startswith("wss:") else {}
    seen = []
    options = {"additional_headers": headers, "subprotocols": ["first", "second.v2"], "max_size": None, **secure}
    async with websockets.connect(address + run, proxy=None, **options) as socket:
        opened = {
            "status": socket.response.status_code,
            "subprotocol": socket.subprotocol,
            "extensions": [extension.name for extension in socket.protocol.extensions],
            "x-opened": socket.response.headers.get("x-opened"),
        }
        first = json.loads(await socket.recv())
        first["query"] = first["query"].replace(run, "RUN")
        for message in ["hello", "", "caf\u00e9 \U0001f511", bytes(range(256)), b"", b"x" * 1_000_000, "y" * 300_000]:
            await socket.send(message)
            seen.append(told(await socket.recv()))
        # In three frames.
        await socket.send(["one, ", "two, ", "three"])
        seen.append(told(await socket.recv()))
        await (await socket.ping(b"are you there"))
        seen.append("pong")
        await socket.send("big 3000064")
        seen.append(told(await socket.recv()))
        # Many under way at once keep their order.
        for n in range(200):
            await socket.send(str(n))
        seen.append([await socket.recv() for _ in range(200)] == [str(n) for n in range(200)])
        await socket.send("close 4001 until then")
        await socket.wait_closed()
        closed = [socket.close_code, socket.close_reason]
    run = uuid.uuid4().hex
    async with websockets.connect(address + run, proxy=None, **options) as socket:
        await socket.recv()
        await socket.close(4002, "enough")
    async with httpx.AsyncClient(verify=context, trust_env=False, timeout=60, headers=headers) as client:
        there = (await client.get(f"{job['base']}/closed?run={run}")).json()
    return {"opened": opened, "first": first, "seen": seen, "closed": closed, "closed there": there}


print(json.dumps(asyncio.run(main(json.load(sys.stdin)))))
