"""A test peer: nginx on free ports, as `nginx.conf` beside this file describes it.

Prints one JSON line when it listens: {"plain", "tls", "scratch"}: two base URLs without a slash at their end, and the folder with `files`,
`uploads` and `access.log`. Ends when its stdin closes.

Environment:
  CERTIFICATE, KEY  files for the TLS port
"""

import json
import os
import pathlib
import random
import socket
import tempfile

HERE = pathlib.Path(__file__).parent


def main() -> None:
    scratch = pathlib.Path(tempfile.mkdtemp(prefix="nginx-"))
    for folder in ["files", "uploads", "bodies"]:
        (scratch / folder).mkdir()
    files(scratch / "files")
    # nginx takes sockets that are open already from this variable, as it does at an upgrade of its binary; so no port is guessed.
    plain, tls = (socket.create_server(("127.0.0.1", 0), backlog=1024) for _ in range(2))
    values = {
        # Its worker would otherwise be `nobody`, whom the folder is closed to.
        "USER": "user root;" if os.geteuid() == 0 else "",
        "SCRATCH": scratch,
        "PLAIN": plain.getsockname()[1],
        "TLS": tls.getsockname()[1],
        "CERTIFICATE": os.environ["CERTIFICATE"],
        "KEY": os.environ["KEY"],
    }
    text = (HERE / "nginx.conf").read_text()
    for name, value in values.items():
        text = text.replace(f"@{name}@", str(value))
    (scratch / "nginx.conf").write_text(text)
    os.setsid()
    end_with_stdin()
    ready = {"plain": f"http://127.0.0.1:{values['PLAIN']}", "tls": f"https://127.0.0.1:{values['TLS']}", "scratch": str(scratch)}
    print(json.dumps(ready), flush=True)
    for listener in (plain, tls):
        os.set_inheritable(listener.fileno(), True)
    os.environ["NGINX"] = f"{plain.fileno()};{tls.fileno()};"
    os.environ["PATH"] += ":/usr/sbin"
    os.execvp("nginx", ["nginx", "-e", "stderr", "-p", str(scratch), "-c", str(scratch / "nginx.conf")])


def files(folder: pathlib.Path) -> None:
    made = random.Random(5)
    contents = {
        "empty.txt": b"",
        "one.txt": b"x",
        "page.html": b"<!doctype html>\n<p>caf\xc3\xa9</p>\n" * 400,
        "record.json": json.dumps({"rows": list(range(5000))}).encode(),
        "random.bin": made.randbytes(3 << 20),
    }
    for name, content in contents.items():
        path = folder / name
        path.write_bytes(content)
        os.utime(path, (1_700_000_000, 1_700_000_000))


def end_with_stdin() -> None:
    """A child that waits for the end of stdin, and ends the group then: nginx knows nothing of it, and its worker survives a killed master."""
    if os.fork() == 0:
        # What it holds open would keep the ready line's reader waiting.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.closerange(3, 256)
        while os.read(0, 4096):
            pass
        os.killpg(0, 9)


if __name__ == "__main__":
    main()
