"""HTTP clients that nobody here wrote run a list of calls and say what they saw.

    calls.py requests | httpx | httpx2 | curl | curl2     (2: HTTP/2 without TLS, by prior knowledge)

stdin: {"base", "token", "ca", "calls": [{"name", "method", "path", "headers": [[name, value]], "body": null | {"text" | "size", "chunked"}}]}
stdout: a list of {"name", "version", "status", "reason", "headers": [[name, value]], "length", "sha256", "text", "informational", "trailers"} or {"name", "error"};
names of headers in small letters, in order; bodies as they came, not decoded.
"""

import hashlib
import json
import subprocess
import sys
import tempfile

PATTERN = bytes(range(251))


def content(call) -> bytes | None:
    body = call["body"]
    if body is None:
        return None
    if "text" in body:
        return body["text"].encode()
    return (PATTERN * (body["size"] // 251 + 1))[: body["size"]]


def pieces(data: bytes):
    for at in range(0, len(data), 50_000):
        yield data[at : at + 50_000]


def payload(call):
    data = content(call)
    return pieces(data) if data is not None and call["body"].get("chunked") else data


def told(call, version, status, reason, headers, body: bytes, informational=(), trailers=()):
    text = body.decode(errors="replace") if len(body) <= 4096 else None
    lower = lambda pairs: sorted(([name.lower(), value] for name, value in pairs), key=lambda pair: pair[0])
    return {
        "name": call["name"],
        "version": version,
        "status": status,
        "reason": reason,
        "headers": lower(headers),
        "length": len(body),
        "sha256": hashlib.sha256(body).hexdigest(),
        "text": text,
        "informational": list(informational),
        "trailers": lower(trailers),
    }


def with_requests(job):
    import requests

    session = requests.Session()
    session.trust_env = False
    session.verify = job["ca"]
    for call in job["calls"]:
        headers = headers_of(job, call)
        with session.request(call["method"], job["base"] + call["path"], headers=headers, data=payload(call), stream=True, allow_redirects=False, timeout=60) as reply:
            body = b"".join(iter(lambda: reply.raw.read(65536, decode_content=False), b""))
            version = {11: "1.1", 10: "1.0"}[reply.raw.version]
            yield told(call, version, reply.status_code, reply.reason, reply.raw.headers.items(), body)


def with_httpx(job, http2=False):
    import httpx
    import ssl

    context = ssl.create_default_context(cafile=job["ca"])
    # With HTTP/1 switched off it speaks HTTP/2 at once, TLS or not.
    with httpx.Client(http1=not http2, http2=http2, verify=context, trust_env=False, timeout=60) as client:
        for call in job["calls"]:
            headers = headers_of(job, call)
            with client.stream(call["method"], job["base"] + call["path"], headers=headers, content=payload(call)) as reply:
                body = b"".join(reply.iter_raw())
                pairs = [(name.decode(), value.decode("latin-1")) for name, value in reply.headers.raw]
                yield told(call, reply.http_version.removeprefix("HTTP/"), reply.status_code, "" if http2 else reply.reason_phrase, pairs, body)


def with_curl(job, *options):
    for call in job["calls"]:
        with tempfile.TemporaryDirectory() as folder:
            command = ["curl", "--silent", "--show-error", "--max-time", "60", "--cacert", job["ca"], "--path-as-is", "--globoff", *options]
            command += ["--dump-header", f"{folder}/head", "--output", f"{folder}/body", "--request", call["method"]]
            if call["method"] == "HEAD":
                command += ["--head"]
            for name, value in headers_of(job, call).items():
                command += ["--header", f"{name}: {value}"]
            data = content(call)
            if data is not None:
                with open(f"{folder}/sent", "wb") as sent:
                    sent.write(data)
                # `-` has no length, so that it goes out in chunks.
                command += ["--upload-file", "-" if call["body"].get("chunked") else f"{folder}/sent"]
            # Not the command line's file name appended: the address ends in no slash, or this is an upload to it.
            address = job["base"] + call["path"]
            with open(f"{folder}/sent" if data is not None else "/dev/null", "rb") as source:
                done = subprocess.run([*command, address], stdin=source, capture_output=True, text=True)
            if done.returncode:
                yield {"name": call["name"], "error": f"curl: {done.returncode} {done.stderr.strip()}"}
                continue
            with open(f"{folder}/head", "rb") as head:
                blocks = head.read().decode("latin-1").split("\r\n\r\n")
            try:
                with open(f"{folder}/body", "rb") as body:
                    body = body.read()
            except FileNotFoundError:
                body = b""
            if call["method"] == "HEAD":
                # There it writes the head.
                body = b""
            yield of_blocks(call, blocks, body)


def of_blocks(call, blocks, body):
    """curl's head file: interim responses, the response, and its trailers."""
    informational, final, trailers = [], None, []
    for block in filter(None, blocks):
        lines = block.strip("\r\n").split("\r\n")
        if not lines[0].startswith("HTTP/"):
            trailers += [tuple(line.split(": ", 1)) for line in lines]
            continue
        version, status, reason = (lines[0].split(" ", 2) + [""])[:3]
        headers = [(name, value.strip(" ")) for name, value in (line.split(":", 1) for line in lines[1:])]
        if status.startswith("1"):
            # Whether a 100 comes is each hop's own business.
            informational += [] if status == "100" else [int(status), sorted(headers)]
        else:
            final = (version.removeprefix("HTTP/"), int(status), reason, headers)
    return told(call, *final, body, informational, trailers)


def headers_of(job, call):
    return {"Authorization": f"Bearer {job['token']}", **dict(call["headers"])}


LIBRARIES = {
    "requests": with_requests,
    "httpx": with_httpx,
    "httpx2": lambda job: with_httpx(job, http2=True),
    "curl": lambda job: with_curl(job, "--http1.1"),
    "curl2": lambda job: with_curl(job, "--http2-prior-knowledge"),
}


def main() -> None:
    job = json.load(sys.stdin)
    results = []
    try:
        for result in LIBRARIES[sys.argv[1]](job):
            results.append(result)
    except Exception as error:
        results.append({"name": job["calls"][len(results)]["name"], "error": f"{type(error).__name__}: {error}"})
    print(json.dumps(results))


if __name__ == "__main__":
    main()
