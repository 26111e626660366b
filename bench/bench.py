#!/usr/bin/env python3
"""`make bench`: Keyholder beside nginx and Envoy, in one run on one machine. docs/dev/performance.md says how to read it.

QUICK=1          a minute's choice of cases, shorter
ONLY=WORDS       cases whose name holds one of these words, such as ONLY="handout gateway-small-32"
BINARY=PATH      measure this program instead of building one
ROUNDS, SECONDS  how many rounds, and how long a target is loaded in each
"""

import http.client
import json
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import load
import peers
import report
from keyholder import Keyholder
from load import Target
from processes import Cores, kept_awake

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "target" / "bench"
SPREAD = 10_000
LARGE = 100 << 20
TOKEN = "eyJhbGciOiJSUzI1NiIsImtpZCI6IjEifQ." + "x" * 480
QUICK_CASES = ["handout-hot-32", "gateway-small-1", "gateway-small-32", "gateway-down-1", "idle"]

CASES = (
    ["idle"]
    + [f"handout-{spread}-{clients}" for spread in ("hot", "spread") for clients in (1, 32, 256)]
    + [f"gateway-{kind}-{clients}" for kind in ("small", "spread", "tls") for clients in (1, 32, 256)]
    + [f"gateway-{kind}-{clients}" for kind in ("down", "up", "tlsdown") for clients in (1, 8)]
    + ["renewal", "scale"]
)


def main():
    quick = os.environ.get("QUICK") == "1"
    only = os.environ.get("ONLY", "").split()
    if only:
        cases = [case for case in CASES if any(word in case for word in only)]
    else:
        cases = QUICK_CASES if quick else CASES
    if not cases:
        raise SystemExit(f"ONLY={' '.join(only)} names no case; there are: {' '.join(CASES)}")
    with ExitStack() as stack:
        bench = Bench(stack, cases, quick)
        for case in cases:
            bench.run(case)
    whole = not quick and not only
    text = report.write(bench.results)
    (WORK / "results.json").write_text(json.dumps(bench.results, indent=1))
    (WORK / "RESULTS.md").write_text(text)
    if whole:
        (ROOT / "bench" / "RESULTS.md").write_text(text)
    print(text)


def binary():
    if given := os.environ.get("BINARY"):
        return Path(given).resolve()
    subprocess.run(["cargo", "build", "--release", "--locked"], cwd=ROOT, check=True)
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "keyholder"


class Bench:
    """Everything that runs, and what was measured."""

    def __init__(self, stack, cases, quick):
        self.binary = binary()
        self.begun = time.monotonic()
        self.cores = Cores()
        os.sched_setaffinity(0, {self.cores.load})
        self.rounds = int(os.environ.get("ROUNDS", 3 if quick else 7))
        self.seconds = int(os.environ.get("SECONDS", 1))
        for spinner in kept_awake(self.cores):
            stack.enter_context(spinner)
        WORK.mkdir(parents=True, exist_ok=True)
        # On the disk that the binary was built on: what is synced must cost what it costs.
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="run-", dir=WORK)))
        self.scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir=memory_folder())))
        self.file = self.scratch / "file"
        self.file.write_bytes(os.urandom(1 << 20) * (LARGE >> 20))
        for folder in (self.folder, self.scratch):
            folder.chmod(0o755)
        peers.certificates(self.folder)
        self.upstream = peers.Upstream(self.folder, self.scratch, self.cores.upstream, TOKEN)
        stack.enter_context(self.upstream.process)

        self.keyholder = stack.enter_context(Keyholder(self.binary, self.folder / "data", self.cores.server, self.folder / "ca.pem"))
        time.sleep(1)
        self.idle_memory = self.keyholder.process.memory()
        plain, tls = f"http://127.0.0.1:{self.upstream.port}", f"https://localhost:{self.upstream.tls_port}"
        self.keyholder.integration("plain", self.upstream, plain)
        self.keyholder.integration("tls", self.upstream, tls)
        self.keyholder.connect(["hot"], "plain")
        self.keyholder.connect(["hot-tls"], "tls")
        self.spread_made = False
        status, token_reply = self.keyholder.request("GET", "/v1/connections/hot/token")
        if status != 200:
            raise SystemExit(f"no token: {token_reply}")
        self.token_reply = token_reply.decode()

        self.nginx, nginx_ports = peers.beside(self.folder, self.scratch, self.cores.server, self.upstream, TOKEN, self.token_reply)
        stack.enter_context(self.nginx)
        self.envoy, envoy_ports = peers.envoy(self.folder, WORK, self.cores.server, self.upstream, TOKEN)
        stack.enter_context(self.envoy)
        self.fixed_reply = Target("nginx", nginx_ports["fixed"], self.nginx)
        self.gateways = {
            kind: [
                Target("direct", port, self.upstream.process),
                Target("nginx", nginx_ports[kind], self.nginx),
                Target("envoy", envoy_ports[kind], self.envoy),
                Target("keyholder", self.keyholder.port, self.keyholder.process, f"/v1/connections/{name}/proxy"),
            ]
            for kind, port, name in (("plain", self.upstream.port, "hot"), ("tls", self.upstream.port, "hot-tls"))
        }
        self.check()
        self.results = {
            "about": report.about(self.cores, self.rounds, self.seconds, command(), peers.versions(WORK), revision()),
            "cases": {},
            "memory": [],
        }
        self.remember("idle")

    def check(self):
        """Each gateway must put the credential in, or the comparison is worth nothing."""
        for targets in self.gateways.values():
            for target in targets:
                status, shown = self.ask(target, "/authorization")
                wanted = f"Bearer {self.keyholder.key if target.name == 'direct' else TOKEN}"
                if status != 200 or shown.decode() != wanted:
                    raise SystemExit(f"{target.name} sends {status} {shown} to the API, not {wanted}")
        if self.ask(self.fixed_reply, "/x")[1].decode() != self.token_reply:
            raise SystemExit("nginx hands out something else")

    def ask(self, target, path):
        client = http.client.HTTPConnection("127.0.0.1", target.port, timeout=30)
        client.request("GET", target.prefix + path, headers={"Authorization": f"Bearer {self.keyholder.key}"})
        response = client.getresponse()
        return response.status, response.read()

    def run(self, case):
        say(f"{case} ({time.monotonic() - self.begun:.0f} s)")
        words = case.split("-")
        if words[0] == "handout":
            self.results["cases"][case] = self.handout(words[1] == "spread", int(words[2]))
        elif words[0] == "gateway":
            kind, clients = words[1], int(words[2])
            measure = self.bodies if kind in ("down", "up", "tlsdown") else self.calls
            self.results["cases"][case] = measure(kind, clients)
        else:
            self.results[case] = getattr(self, case)()
        self.results["about"]["minutes"] = (time.monotonic() - self.begun) / 60
        self.remember(case)

    def remember(self, after):
        processes = {"keyholder": self.keyholder.process, "nginx": self.nginx, "envoy": self.envoy}
        self.results["memory"].append(
            {"after": after} | {name: [it.memory(), it.memory("VmHWM")] for name, it in processes.items()}
        )

    def make_spread(self):
        if not self.spread_made:
            self.spread_made = True
            begun = time.monotonic()
            self.keyholder.connect((f"b-{n}" for n in range(SPREAD)), "plain")
            say(f"{SPREAD} connections made in {time.monotonic() - begun:.0f} s")

    def handout(self, spread, clients):
        if spread:
            self.make_spread()
        path = f"/v1/connections/{'b-{n}' if spread else 'hot'}/token"
        targets = [self.fixed_reply, Target("keyholder", self.keyholder.port, self.keyholder.process)]
        return self.in_turn(targets, lambda target, seconds: self.wrk(target, path, clients, seconds, spread))

    def calls(self, kind, clients):
        spread = kind == "spread"
        if spread:
            self.make_spread()

        def one(target, seconds):
            prefix = "/v1/connections/b-{n}/proxy" if spread else target.prefix
            return self.wrk(target, f"{prefix}/small", clients, seconds, spread)

        return self.in_turn(self.gateways["tls" if kind == "tls" else "plain"], one)

    def wrk(self, target, path, clients, seconds, spread):
        return load.wrk(self.cores.load, target, path, self.keyholder.key, clients, seconds, SPREAD if spread else 0)

    def bodies(self, kind, clients):
        targets = self.gateways["tls" if kind == "tlsdown" else "plain"]
        times = max(1, 6 // clients)
        for target in targets:
            target.process.forget_peak()
        before = {target.name: target.process.memory() for target in targets}
        result = self.in_turn(
            targets, lambda target, _: load.bulk(target, self.keyholder.key, clients, times, self.file, kind == "up"))
        result["grown"] = {target.name: target.process.memory("VmHWM") - before[target.name] for target in targets}
        return result

    def in_turn(self, targets, measure):
        """Rounds in which each target has its turn, so that what is compared stands next to each other in time; the order changes with each round."""
        for target in targets:
            measure(target, 1)
        rounds = []
        for n in range(self.rounds):
            at = n % len(targets)
            samples = {target.name: vars(measure(target, self.seconds)) for target in targets[at:] + targets[:at]}
            rounds.append(samples)
        return {"rounds": rounds}

    def idle(self):
        return {"memory": self.idle_memory, "binary": os.path.getsize(self.binary)}

    def renewal(self):
        """The time of a forced renewal, less that of the provider's reply alone, beside that of an fsync on the same disk."""
        name = "rotating"
        self.keyholder.stop()
        self.keyholder.environment["KEYHOLDER_LOG"] = "info,keyholder_broker::renew=debug"
        self.restart()
        self.keyholder.integration(
            name, self.upstream, f"http://127.0.0.1:{self.upstream.port}", "authorization_code", "/rotating",
            authorization_url=f"http://127.0.0.1:{self.upstream.port}/authorize")
        self.keyholder.connect([name], name, refresh_token="first")
        client = self.keyholder.client()
        token = Target("direct", self.upstream.port, self.upstream.process)
        took = {"renewal": [], "reply": [], "fsync": []}
        with open(self.folder / "synced", "wb") as file:
            for _ in range(100):
                took["fsync"].append(timed(lambda: (file.write(b"x" * 4096), file.flush(), os.fsync(file.fileno()))))
                took["renewal"].append(timed(lambda: self.keyholder.do("POST", f"/v1/connections/{name}/refresh", None, client)))
                took["reply"].append(timed(lambda: self.ask(token, "/rotating")))
        middle = {what: statistics.median(times) for what, times in took.items()}
        said = report.escrow_times(self.keyholder.log.read_text(errors="replace"))
        self.keyholder.stop()
        del self.keyholder.environment["KEYHOLDER_LOG"]
        self.restart()
        return middle | said

    def restart(self):
        self.keyholder.start()
        for targets in self.gateways.values():
            targets[-1].process = self.keyholder.process

    def scale(self):
        """A server of its own whose store grows: what it costs to start, to hand out a token for the first time and again, and to have nothing to do."""
        folder = self.folder / "scale"
        sizes, real = (1_000, 100_000, 1_000_000), 500
        found = []
        with ExitStack() as stack:
            server = stack.enter_context(Keyholder(self.binary, folder, self.cores.server, self.folder / "ca.pem"))
            server.integration("plain", self.upstream, f"http://127.0.0.1:{self.upstream.port}")
            server.connect((f"b-{n}" for n in range(real)), "plain")
            stored = real
            for size in sizes:
                server.stop()
                fill(folder / "keyholder.db", stored, size)
                stored = size
                starts = []
                for _ in range(3):
                    server.stop()
                    starts.append(server.start())
                started = server.process.memory()
                before = server.process.cpu()
                time.sleep(5)
                idle = (server.process.cpu() - before) / 5
                client = server.client()
                first, fresh = ([timed(lambda n=n: server.do("GET", f"/v1/connections/b-{n}/token", None, client)) for n in range(real)]
                                for _ in range(2))
                target = Target("keyholder", server.port, server.process)
                rounds = self.in_turn(
                    [self.fixed_reply, target],
                    lambda it, seconds: load.wrk(self.cores.load, it, "/v1/connections/b-{n}/token", server.key, 32, seconds, real))["rounds"]
                rate = statistics.median(samples["keyholder"]["rate"] for samples in rounds)
                beside = statistics.median(samples["keyholder"]["rate"] / samples["nginx"]["rate"] for samples in rounds)
                found.append({
                    "stored": size, "start": statistics.median(starts), "first": statistics.median(first), "fresh": statistics.median(fresh),
                    "rate": rate, "beside": beside, "idle": idle, "memory": started, "memory_after": server.process.memory(),
                    "database": os.path.getsize(folder / "keyholder.db"),
                })
        return found


def fill(database, stored, wanted):
    """Copies of a connection up to the number wanted, due over the next month but not now. They have no tokens: nothing asks for them."""
    with sqlite3.connect(database) as sql:
        columns = [row[1] for row in sql.execute("PRAGMA table_info(connections)")]
        now = int(time.time() * 1000)
        other = {"id": "printf('con_%026d', n)", "name": "printf('c-%d', n)", "token_set": "NULL", "previous_token_set": "NULL",
                 "due_at": f"{now + 7_200_000} + n * 2500"}
        values = ", ".join(other.get(column, column) for column in columns)
        sql.execute(
            f"WITH RECURSIVE n (n) AS (SELECT {stored} UNION ALL SELECT n + 1 FROM n WHERE n + 1 < {wanted}) "
            f"INSERT INTO connections ({', '.join(columns)}) SELECT {values} FROM n, connections WHERE name = 'b-0'")
    sql.close()
    with sqlite3.connect(database) as sql:
        sql.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    sql.close()


def timed(work):
    """Microseconds."""
    begun = time.perf_counter()
    work()
    return (time.perf_counter() - begun) * 1e6


def memory_folder():
    """For large bodies: where no disk is in the way."""
    shm = Path("/dev/shm")
    return shm if os.access(shm, os.W_OK) and shutil.disk_usage(shm).free > 20 * LARGE else WORK


def revision():
    done = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def command():
    given = [f'{name}="{os.environ[name]}"' for name in ("QUICK", "ONLY", "ROUNDS", "SECONDS") if os.environ.get(name)]
    return " ".join(["make bench", *given, *(["BINARY=…"] if os.environ.get("BINARY") else [])])


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
