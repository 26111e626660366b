"""Processes on loopback: started on one core, looked at through /proc, stopped by pid."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

_given = set()


class Cores:
    """Which core does what. The server under test has one to itself; with two, load and upstream share the other."""

    def __init__(self):
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < 2:
            raise SystemExit("make bench needs two cores: one for the server under test, one for load and upstream")
        self.server, self.upstream = cores[:2]
        self.load = cores[2] if len(cores) > 2 else cores[1]


def kept_awake(cores):
    """Processes that use what is left of the cores, and give way to everybody (SCHED_IDLE). A core that has gone to sleep takes tens of microseconds to wake in a virtual
    machine: at one client that would be most of what is measured."""
    def settle(core):
        os.sched_setaffinity(0, {core})
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))

    return [Process("spinner", [sys.executable, "-c", "while True: pass"], None, os.devnull, settle=lambda core=core: settle(core))
            for core in {cores.server, cores.upstream, cores.load}]


class Process:
    """A server and its children."""

    def __init__(self, name, command, core, log, settle=None, **environment):
        self.name = name
        self.log = log
        with open(log, "ab") as output:
            self.popen = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                env=os.environ | environment,
                preexec_fn=settle or (lambda: os.sched_setaffinity(0, {core})),
            )
        self.pid = self.popen.pid

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        self.popen.terminate()
        try:
            self.popen.wait(30)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()

    def listening(self, port):
        """Waits until it accepts."""
        until = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return self
            except OSError:
                if self.popen.poll() is not None or time.monotonic() > until:
                    raise SystemExit(f"{self.name} did not start:\n{tail(self.log)}") from None
                time.sleep(0.005)

    def pids(self):
        found, to_see = [], [self.pid]
        while to_see:
            pid = to_see.pop()
            found.append(pid)
            to_see += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        return found

    def cpu(self):
        """Seconds of processor time so far, user and system, of all its threads."""
        # The clock that clock_getcpuclockid(3) names: what /proc/PID/stat shows, but to the nanosecond.
        return sum(time.clock_gettime(~pid << 3 | 2) for pid in self.pids())

    def memory(self, field="VmRSS"):
        """Bytes; of all its processes, so pages that they share count more than once."""
        total = 0
        for pid in self.pids():
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith(field + ":"):
                    total += int(line.split()[1]) * 1024
        return total

    def forget_peak(self):
        """Lets VmHWM begin anew."""
        for pid in self.pids():
            Path(f"/proc/{pid}/clear_refs").write_text("5")


def tail(log):
    return "\n".join(Path(log).read_text(errors="replace").splitlines()[-15:])


def free_port():
    """A port that nobody listens on, and that this run hasn't given away yet."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        if port not in _given:
            _given.add(port)
            return port
