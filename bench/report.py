"""What was measured as tables, with the budgets and whether they held."""

import os
import platform
import re
import statistics
from datetime import UTC, datetime
from pathlib import Path

MB = 1 << 20
NAMES = {"direct": "direct", "nginx": "nginx", "envoy": "Envoy", "keyholder": "Keyholder"}


def about(cores, rounds, seconds, command, versions, revision):
    model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{model[1] if model else platform.machine()}, {os.cpu_count()} cores, "
                   f"{int(memory[1]) >> 20 if memory else '?'} GB, Linux {platform.release()}",
        "versions": {"Keyholder": revision} | versions,
        "command": command,
        "pinning": f"server under test on core {cores.server}, the upstream on core {cores.upstream}, load on core {cores.load}",
        "rounds": rounds,
        "seconds": seconds,
    }


def escrow_times(log):
    """From the renewals' own log: microseconds from a reply's last byte until it was in escrow, and until it was synced there."""
    found = {name: [int(n) for n in re.findall(rf"\b{name}=(\d+)", log)] for name in ("written", "synced")}
    return {name: statistics.median(times) for name, times in found.items() if times}


class Case:
    """One case's rounds."""

    def __init__(self, name, result):
        self.name, self.rounds, self.grown = name, result["rounds"], result.get("grown", {})
        self.targets = sorted(self.rounds[0], key=list(NAMES).index)

    def middle(self, target, figure):
        return statistics.median(samples[target][figure] for samples in self.rounds)

    def ratios(self, figure, over, under="keyholder"):
        return sorted(samples[under][figure] / max(samples[over][figure], 1e-9) for samples in self.rounds)

    def ratio(self, figure, over, under="keyholder"):
        return statistics.median(self.ratios(figure, over, under))

    def added(self, target, figure):
        return statistics.median(samples[target][figure] - samples["direct"][figure] for samples in self.rounds)

    def shown_ratio(self, figure, over):
        all_of_them = self.ratios(figure, over)
        return f"**{statistics.median(all_of_them):.2f}** ({all_of_them[0]:.2f}–{all_of_them[-1]:.2f})"


def write(results):
    cases = [Case(name, result) for name, result in results["cases"].items()]

    def of(*beginnings):
        return [case for case in cases if case.name.startswith(beginnings)]

    handouts = of("handout-")
    calls = of("gateway-small-", "gateway-spread-", "gateway-tls-")
    bodies = of("gateway-down-", "gateway-up-", "gateway-tlsdown-")
    parts = [header(results["about"]), budgets(results, handouts, calls, bodies)]
    if handouts:
        parts.append("## Hand-out of a fresh token, beside nginx `return 200` of the same body\n\n" + rates(handouts) + "\n\n" + latencies(handouts))
    if calls:
        parts.append("## Gateway, small body\n\n" + rates(calls) + "\n\nAdded to the direct call (the same load without a gateway), microseconds:\n\n"
                     + added(calls))
    if bodies:
        parts.append("## Gateway, 100 MB bodies\n\n" + large(bodies))
    if "renewal" in results:
        parts.append(renewal(results["renewal"]))
    if "scale" in results:
        parts.append(scale(results["scale"]))
    parts.append(memory(results["memory"]))
    return "\n\n".join(parts) + "\n"


def header(about):
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    return f"""# Results of `make bench`

Written by the run; docs/dev/performance.md explains. {about["date"]}, {about["minutes"]:.0f} minutes.

- Machine: {about["machine"]}
- Versions: {versions}
- Command: `{about["command"]}`
- Pinning: {about["pinning"]}; each server has one worker thread. The cores are kept awake
- {about["rounds"]} rounds of {about["seconds"]} s a target, taking turns. A ratio is the median of the rounds' ratios, with the lowest and highest; other figures are medians of the rounds
- *busy*: the share of its core that the server used. Well below 100 %, something else was the limit (the load, or other work on the machine), and processor time a request is the better figure"""


def table(head, rows):
    lines = ["| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows]]
    return "\n".join(lines)


def budgets(results, handouts, calls, bodies):
    rows = []

    def row(work, budget, measured, held):
        rows.append([work, budget, measured, "held" if held else "**not held**"])

    def row_of(cases, work, budget, value, held, shown="{:.2f}"):
        if cases:
            values = {case.name: value(case) for case in cases}
            # A bound from above, as of times, holds at 0: then the highest is the worst, else the lowest.
            worst = (max if held(0) else min)(values, key=values.get)
            good = sum(map(held, values.values()))
            spread = f"{shown.format(min(values.values()))} to {shown.format(max(values.values()))}"
            row(work, budget, f"{spread} ({good} of {len(values)} cases; worst: {worst.removeprefix('gateway-')})", good == len(values))

    row_of(handouts, "hand-out, requests/s", "≥ 0.7 × nginx", lambda it: it.ratio("rate", "nginx"), lambda it: it >= 0.7)
    row_of(handouts, "hand-out, p99", "≤ 2 × nginx", lambda it: it.ratio("p99", "nginx"), lambda it: it <= 2)
    plain = [case for case in calls if "-tls-" not in case.name]
    row_of(plain, "gateway, small body, requests/s", "≥ 0.8 × nginx", lambda it: it.ratio("rate", "nginx"), lambda it: it >= 0.8)
    row_of(plain, "the same", "≥ 2.5 × Envoy", lambda it: it.ratio("rate", "envoy"), lambda it: it >= 2.5)
    alone = [case for case in plain if case.name.endswith("-1")]
    row_of(alone, "gateway, added p50 at one client", "< 100 µs", lambda it: it.added("keyholder", "p50"), lambda it: it < 100, "{:.0f}")
    row_of(bodies, "gateway, 100 MB, bytes/s", "≥ 0.8 × nginx", lambda it: it.ratio("rate", "nginx"), lambda it: it >= 0.8)
    row_of(bodies, "gateway, 100 MB, growth of memory (MB)", "< 16", lambda it: it.grown["keyholder"] / MB, lambda it: it < 16, "{:.1f}")
    if found := results.get("renewal"):
        times = (found["renewal"] - found["reply"]) / found["fsync"]
        row("renewal beside the provider's reply", "< 3 × fsync", f"{times:.1f} × fsync", times < 3)
    if found := results.get("scale"):
        small, large = found[0], found[-1]
        row("start at 1 million connections", "< 1 s", f"{large['start']:.2f} s", large["start"] < 1)
        ratio = large["beside"] / small["beside"]
        row("fresh hand-out at 1 million", "as at 1 thousand (≥ 0.9 ×)", f"{ratio:.2f} ×", ratio >= 0.9)
        row("scheduler at 1 million, nothing due", "as at 1 thousand (+ 1 % of a core)",
            f"{100 * large['idle']:.1f} % of a core, beside {100 * small['idle']:.1f} %", large["idle"] <= small["idle"] + 0.01)
    if found := results.get("idle"):
        row("idle memory", "< 40 MB", f"{found['memory'] / MB:.1f} MB", found["memory"] < 40 * MB)
        row("binary", "< 40 MB", f"{found['binary'] / MB:.1f} MB", found["binary"] < 40 * MB)
    return "## Budgets\n\n" + table(["work", "budget", "measured", ""], rows)


def rates(cases):
    head, rows = ["case"], []
    others = [name for name in cases[0].targets if name != "keyholder"]
    head += [f"{NAMES[name]} /s" for name in cases[0].targets]
    head += [f"× {NAMES[name]}" for name in others if name != "direct"]
    head += [f"CPU µs {NAMES[name]}" for name in cases[0].targets if name != "direct"] + ["× nginx", "busy nginx, Keyholder"]
    for case in cases:
        row = [case.name] + [f"{case.middle(name, 'rate'):,.0f}" for name in case.targets]
        row += [case.shown_ratio("rate", name) for name in others if name != "direct"]
        row += [f"{case.middle(name, 'cpu'):.1f}" for name in case.targets if name != "direct"]
        row += [f"{case.ratio('cpu', 'nginx'):.2f}", " ".join(f"{100 * case.middle(name, 'busy'):.0f} %" for name in ("nginx", "keyholder"))]
        rows.append(row)
    return table(head, rows)


def latencies(cases):
    rows = [[case.name] + [spread_of(case.middle, name) for name in case.targets] + [case.shown_ratio("p99", "nginx")] for case in cases]
    return table(["p50 / p99 / p99.9, µs"] + [NAMES[name] for name in cases[0].targets] + ["p99 × nginx"], rows)


def added(cases):
    gateways = [name for name in cases[0].targets if name != "direct"]
    rows = [[case.name, spread_of(case.middle, "direct")] + [spread_of(case.added, name) for name in gateways] for case in cases]
    return table(["p50 / p99 / p99.9", "direct itself"] + [f"{NAMES[name]} adds" for name in gateways], rows)


def spread_of(figure, target):
    return " / ".join(f"{figure(target, part):,.0f}" for part in ("p50", "p99", "p999"))


def large(cases):
    targets = cases[0].targets
    gateways = [name for name in targets if name != "direct"]
    head = ["case"] + [f"{NAMES[name]} MB/s" for name in targets] + [f"× {NAMES[name]}" for name in gateways if name != "keyholder"]
    head += [f"CPU ms {NAMES[name]}" for name in gateways] + [f"{NAMES[name]} grew by, MB" for name in gateways]
    rows = []
    for case in cases:
        row = [case.name] + [f"{case.middle(name, 'rate') / MB:,.0f}" for name in targets]
        row += [case.shown_ratio("rate", name) for name in gateways if name != "keyholder"]
        row += [f"{case.middle(name, 'cpu') / 1000:.0f}" for name in gateways]
        row += [f"{max(case.grown[name], 0) / MB:.1f}" for name in gateways]
        rows.append(row)
    return table(head, rows)


def renewal(found):
    times = (found["renewal"] - found["reply"]) / found["fsync"]
    rows = [[f"{found[name]:,.0f}" for name in ("renewal", "reply", "fsync", "written", "synced") if name in found] + [f"**{times:.1f}**"]]
    head = ["forced renewal", "the provider's reply alone", "one fsync", "reply to escrow", "reply synced"][: len(rows[0]) - 1]
    return ("## Renewal, one at a time, with a rotating refresh token\n\nMicroseconds, medians of 100; the fsync is of 4 KiB appended to a file on the same disk, taken in turn with the renewals.\n\n"
            + table(head + ["(renewal − reply) / fsync"], rows))


def scale(found):
    rows = [[f"{it['stored']:,}", f"{it['start']:.3f}", f"{it['first']:,.0f}", f"{it['fresh']:,.0f}", f"{it['rate']:,.0f}", f"{it['beside']:.2f}",
             f"{100 * it['idle']:.2f}", f"{it['memory'] / MB:.1f}", f"{it['memory_after'] / MB:.1f}", f"{it['database'] / MB:,.0f}"] for it in found]
    head = ["stored", "start, s", "first hand-out, µs", "fresh hand-out, µs", "fresh, 32 clients, /s", "× nginx", "nothing due, % of a core", "memory at start, MB",
            "and after the load", "database, MB"]
    return ("## Scale, SQLite\n\nOne client, a connection after the other (500 of those stored): first from the store, then from memory. A start is until `/readyz` says 200. "
            "What the scheduler does when much is due: `make scale`.\n\n" + table(head, rows))


def memory(found):
    names = [name for name in found[0] if name != "after"]
    rows = [[it["after"]] + [f"{it[name][0] / MB:.1f} ({it[name][1] / MB:.1f})" for name in names] for it in found]
    return "## Memory\n\nRSS after each case, and its peak so far (for 100 MB bodies, since the case began), MB.\n\n" + table(["after"] + [NAMES[name] for name in names], rows)
