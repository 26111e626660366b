"""A test peer: the identity provider `nanoidp` on a free port.

Prints one JSON line when it listens: {"issuer", "pid"}. Everything else goes to stderr. Ends when its stdin closes, so
that a test that dies leaves no orphan.

Environment:
  PROFILE  dev (the default), stricter-dev or oauth21
  RATE     how often the token endpoint may be called in profile stricter-dev, as `limits` writes it ("10/minute")

What the profiles do: `stricter-dev` limits the token endpoint, demands PKCE and stores passwords with bcrypt;
`oauth21` refuses the password grant.

How to get a 429: start with PROFILE=stricter-dev and call `POST /token` more often than RATE. Every call counts,
whatever the client, the grant or the outcome, because the key is the caller's address. The reply is 429 with
`Retry-After` in seconds and the body {"error": "rate_limit_exceeded", "error_description": ...}, which is no OAuth
error code of RFC 6749. The window is fixed, counted from the first call in it. Profile `dev` never limits.
"""

import json
import os
import pathlib
import socket
import sys
import tempfile
import threading

HERE = pathlib.Path(__file__).parent


def main() -> None:
    ready, sys.stdout = sys.stdout, sys.stderr
    threading.Thread(target=exit_with_stdin, daemon=True).start()
    # The port is taken before the issuer, which is named by it, is configured.
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    port = listener.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="nanoidp-") as folder:
        render(pathlib.Path(folder), port)
        # It keeps keys and state beside its configuration, or in the working directory.
        os.chdir(folder)
        serve(listener, folder, lambda: print(json.dumps({"issuer": f"http://127.0.0.1:{port}", "pid": os.getpid()}), file=ready, flush=True))


def render(folder: pathlib.Path, port: int) -> None:
    settings = (HERE / "settings.yaml").read_text()
    settings = settings.replace("@PORT@", str(port)).replace("@RATE@", os.environ.get("RATE", "10/minute"))
    (folder / "settings.yaml").write_text(settings)
    (folder / "users.yaml").write_text((HERE / "users.yaml").read_text())


def serve(listener: socket.socket, folder: str, on_ready) -> None:
    from nanoidp.app import create_app
    from werkzeug.serving import make_server

    app = create_app(folder, profile=os.environ.get("PROFILE", "dev"), strict_config=True)
    server = make_server("127.0.0.1", listener.getsockname()[1], app, threaded=True, fd=listener.fileno())
    on_ready()
    server.serve_forever()


def exit_with_stdin() -> None:
    # The raw descriptor: a thread blocked in sys.stdin's buffer would hold its lock at exit.
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), 15)


if __name__ == "__main__":
    import signal

    # Leave by an exception, so that the folder is removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    main()
