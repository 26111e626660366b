"""A test peer: an API in Python behind the server `hypercorn`, HTTP/1.1 and HTTP/2, on free ports.

Prints one JSON line when it listens: {"plain", "tls"}: base URLs without a slash at their end. Ends when its stdin closes.

  /events     server-sent events: 8 of them, each sent when somebody has asked for `/seen?run=R&n=N`, N being the one before; `Last-Event-ID` goes on
              from there; with `cut=N` the stream ends after event N, once
  /seen       acknowledges an event
  /socket     a WebSocket that answers each message with itself; `close CODE REASON` closes, `big N` sends N bytes; what it was opened with comes first
  /closed     the code with which the client of `/socket?run=R` closed, when it has
  elsewhere   the request as JSON: method, raw path, query, headers, length and SHA-256 of the body

Environment:
  CERTIFICATE, KEY  files for the TLS port
"""

import asyncio
import hashlib
import json
import os
import socket
import urllib.parse

from hypercorn.asyncio import serve
from hypercorn.config import Config

seen: dict[tuple[str, int], asyncio.Event] = {}
codes: dict[str, int] = {}


async def app(scope, receive, send) -> None:
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["type"] == "websocket":
        await talk(scope, receive, send)
    elif scope["path"].endswith("/events"):
        await events(scope, send)
    elif scope["path"].endswith("/seen"):
        event(*asked(scope)).set()
        await reply(send, 204, b"", [])
    elif scope["path"].endswith("/closed"):
        run, _ = asked(scope)
        await event(run, 0).wait()
        await reply(send, 200, json.dumps({"code": codes[run]}).encode(), [(b"content-type", b"application/json")])
    else:
        await reply(send, 200, await shown(scope, receive), [(b"content-type", b"application/json")])


async def events(scope, send) -> None:
    run, _ = asked(scope)
    last = dict(scope["headers"]).get(b"last-event-id")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]})
    if last is None:
        await piece(send, b": welcome\nretry: 7\n\n", True)
    for n in range(int(last or b"0") + 1, 9):
        text = f"event: kind-{n % 3}\nid: {n}\ndata: {{\"n\": {n},\ndata:  \"caf\u00e9\": \"{'x' * n * 100}\"}}\n\n"
        await piece(send, text.encode(), True)
        await event(run, n).wait()
        if last is None and n == asked(scope, "cut")[1]:
            await piece(send, b"", False)
            return
    await piece(send, b"data: over\r\n\r\n", True)
    await piece(send, b"", False)


async def talk(scope, receive, send) -> None:
    await receive()
    offered = scope["subprotocols"]
    headers = [(b"x-opened", b"yes")]
    await send({"type": "websocket.accept", "subprotocol": offered[-1] if offered else None, "headers": headers})
    names = sorted(name.decode() for name, _ in scope["headers"])
    authorization = dict(scope["headers"]).get(b"authorization", b"").decode()
    opened = {"path": scope["raw_path"].decode(), "query": scope["query_string"].decode(), "names": names, "authorization": authorization}
    await send({"type": "websocket.send", "text": json.dumps(opened)})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            codes[asked(scope)[0]] = message.get("code")
            event(*asked(scope)).set()
            return
        text = message.get("text") or ""
        if text.startswith("close "):
            _, code, reason = text.split(" ", 2)
            await send({"type": "websocket.close", "code": int(code), "reason": reason})
            return
        if text.startswith("big "):
            await send({"type": "websocket.send", "bytes": bytes(range(256)) * (int(text[4:]) // 256)})
        else:
            await send({"type": "websocket.send", "text": message.get("text"), "bytes": message.get("bytes")})


async def shown(scope, receive) -> bytes:
    body, pieces = hashlib.sha256(), 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        body.update(message.get("body", b""))
        pieces += len(message.get("body", b""))
        if not message.get("more_body"):
            break
    headers = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]]
    told = {
        "method": scope["method"],
        "path": scope["raw_path"].decode("latin-1"),
        "query": scope["query_string"].decode("latin-1"),
        "headers": sorted(headers),
        "length": pieces,
        "sha256": body.hexdigest(),
    }
    return json.dumps(told, indent=1).encode()


async def reply(send, status: int, body: bytes, headers) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await piece(send, body, False)


async def piece(send, body: bytes, more: bool) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})


def asked(scope, number: str = "n") -> tuple[str, int]:
    query = urllib.parse.parse_qs(scope["query_string"].decode())
    return query.get("run", [""])[0], int(query.get(number, ["0"])[0])


def event(run: str, n: int) -> asyncio.Event:
    return seen.setdefault((run, n), asyncio.Event())


async def main() -> None:
    plain, tls = (socket.create_server(("127.0.0.1", 0), backlog=1024) for _ in range(2))
    config = Config()
    config.insecure_bind = [f"fd://{plain.fileno()}"]
    config.bind = [f"fd://{tls.fileno()}"]
    config.certfile, config.keyfile = os.environ["CERTIFICATE"], os.environ["KEY"]
    config.alpn_protocols = ["h2", "http/1.1"]
    config.errorlog = "-"
    config.loglevel = "ERROR"
    config.keep_alive_timeout = 60
    config.graceful_timeout = 0
    ready = {"plain": f"http://127.0.0.1:{plain.getsockname()[1]}", "tls": f"https://127.0.0.1:{tls.getsockname()[1]}"}
    serving = asyncio.create_task(serve(app, config, mode="asgi", shutdown_trigger=stdin_closed))
    print(json.dumps(ready), flush=True)
    await serving


async def stdin_closed() -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(0, "rb"))
    await reader.read()
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main())
