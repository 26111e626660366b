"""The load: wrk for small bodies, plain sockets for large ones."""

import os
import re
import socket
import statistics
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

WRK_LUA = Path(__file__).with_name("wrk.lua")


@dataclass
class Target:
    """Where requests go. `process` is whose processor time counts; `prefix` stands before the API's path."""

    name: str
    port: int
    process: object
    prefix: str = ""


@dataclass
class Sample:
    """One round at one target. Times in microseconds; `busy` is the share of its core that the server used."""

    rate: float
    p50: float
    p99: float
    p999: float
    cpu: float
    busy: float


def wrk(core, target, path, key, clients, seconds, spread=0):
    """`{n}` in the path becomes the number of a connection."""
    url = f"http://127.0.0.1:{target.port}{path.replace('{n}', '0')}"
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--timeout", "10s", "-s", str(WRK_LUA),
               "-H", f"Authorization: Bearer {key}", url, "--", path]
    before = target.process.cpu()
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"SPREAD": str(spread)},
                          preexec_fn=lambda: os.sched_setaffinity(0, {core}))
    cpu = target.process.cpu() - before
    found = re.search(r"^RESULT (\d+) (\d+) (\d+) (\d+) (\d+) (\d+)$", done.stdout, re.M)
    if not found:
        raise SystemExit(f"{' '.join(command)}:\n{done.stdout}{done.stderr}")
    requests, micros, errors, p50, p99, p999 = map(int, found.groups())
    if errors or not requests:
        raise SystemExit(f"{target.name}: {errors} of {requests} requests failed:\n{done.stdout}")
    return Sample(requests / micros * 1e6, p50, p99, p999, cpu / requests * 1e6, cpu / micros * 1e6)


def head(method, target, path, key, length=None):
    lines = [f"{method} {target.prefix}{path} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {key}"]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def read_head(sock, buffer):
    """The length of the body that follows, and how much of it is here already."""
    got = 0
    while (end := buffer.find(b"\r\n\r\n", 0, got)) < 0:
        n = sock.recv_into(memoryview(buffer)[got:])
        if n == 0:
            raise SystemExit(f"closed in the head of a reply: {bytes(buffer[:got])}")
        got += n
    text = bytes(buffer[:end]).decode("latin-1").lower()
    if " 200 " not in text.splitlines()[0]:
        raise SystemExit(f"not a 200: {bytes(buffer[:got])}")
    return int(re.search(r"content-length: *(\d+)", text)[1]), got - end - 4


def download(sock, request, buffer):
    sock.sendall(request)
    length, got = read_head(sock, buffer)
    while got < length:
        n = sock.recv_into(buffer)
        if n == 0:
            raise SystemExit(f"closed after {got} of {length} bytes")
        got += n
    return length


def upload(sock, request, buffer, file, size):
    sock.sendall(request)
    sent = 0
    while sent < size:
        sent += os.sendfile(sock.fileno(), file.fileno(), sent, size - sent)
    length, got = read_head(sock, buffer)
    while got < length:
        got += sock.recv_into(buffer)
    return size


def bulk(target, key, clients, times, file, up):
    """Each client moves the file so often. `rate` is bytes a second, `cpu` microseconds a file, `p50` those until a file was through."""
    size = os.path.getsize(file)
    took, failed = [], []

    def work():
        buffer = bytearray(1 << 20)
        try:
            with socket.create_connection(("127.0.0.1", target.port)) as sock, open(file, "rb") as source:
                for _ in range(times):
                    begun = time.perf_counter()
                    if up:
                        moved = upload(sock, head("POST", target, "/upload", key, size), buffer, source, size)
                    else:
                        moved = download(sock, head("GET", target, "/file", key), buffer)
                    if moved != size:
                        raise SystemExit(f"{moved} bytes instead of {size}")
                    took.append((time.perf_counter() - begun) * 1e6)
        except (SystemExit, OSError) as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(clients)]
    before, begun = target.process.cpu(), time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds, cpu = time.perf_counter() - begun, target.process.cpu() - before
    if failed:
        raise SystemExit(f"{target.name}: {failed[0]}")
    took.sort()
    return Sample(size * len(took) / seconds, statistics.median(took), took[-1], took[-1], cpu / len(took) * 1e6, cpu / seconds)
