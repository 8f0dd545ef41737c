"""What people would use instead, side by side with this daemon in one run.

    python -m benchmarks.peers [w1 w2 w3] [--systems huey,dramatiq] [--rounds N] [--quick] [--directory DIRECTORY]

w1: registrations, acknowledged when they are on disk, by 1 and by 8 clients; w2: 10,000 operations under watch; w3: 1,000
operations that end at once. Systems take turns within each round. Results go to `results/peers_w*.json`.
"""

import argparse
import json
import math
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.harness.daemon import Daemon, config
from benchmarks.harness.filling import fill, zones_table
from benchmarks.harness.load import load
from benchmarks.harness.machine import Others, facts
from benchmarks.harness.process import memory_of_family
from benchmarks.harness.receiver import Arrivals, Receiver
from benchmarks.harness.row import RESULTS, number
from benchmarks.harness.watching import calls_of_tasks, told_tasks
from benchmarks.peers.operation import looks
from benchmarks.peers.registering import registering
from benchmarks.peers.system import NAMES, NEEDS_REDIS, PEERS_PYTHON, STORES, finished, redis_program, system, versions

Found = dict[str, float]
OURS = "task_daemon"
BATCH = 100
ZONES = 10  # of this daemon in w2, asked about one operation at a time
INTERVAL = 10.0
LASTS = 0.002  # seconds of one look
GRACE = 0.5  # seconds in which a look may be late at the end
EARLY = 0.005  # seconds; the daemon tells milliseconds


class Work:
    """One kind of work. `measure` makes one round of one system."""

    def __init__(self, name: str, what: str, rounds: int, figures: dict[str, str]) -> None:
        self.name, self.what, self.rounds, self.figures = name, what, rounds, figures


W1 = Work(
    "w1",
    "registrations, acknowledged when they are on disk",
    3,
    {
        "one": "1 client, /s",
        "one_p99": "1 client, p99 ms",
        "eight": "8 clients, /s",
        "eight_p99": "8 clients, p99 ms",
        "eight_max": "8 clients, slowest ms",
        "cpu": "CPU of all processes for one (8 clients), µs",
        "lean": "lean C client, 8 connections, /s",
        "batch": f"batches of {BATCH}, /s",
    },
)
W2 = Work(
    "w2",
    f"operations watched, each looked at every {INTERVAL:g} s, a look takes 2 ms",
    1,
    {
        "done": "looks made, % of those due",
        "p50": "late, p50 ms",
        "p99": "late, p99 ms",
        "cpu": "CPU for each look, ms",
        "rss": "RSS of all processes, MiB",
        "pss": "PSS, MiB",
    },
)
W3 = Work(
    "w3",
    "operations that end at once, callbacks to a local receiver",
    3,
    {
        "rate": "callbacks, /s",
        "all": "from the end to the last callback received, s",
        "cpu": "CPU for each, ms",
        "missing": "not called back in time",
    },
)


def main() -> None:
    works = {work.name: (work, measure) for work, measure in ((W1, w1), (W2, w2), (W3, w3))}
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description="Measure peers beside this daemon.")
    parser.add_argument("works", nargs="*", help=f"{', '.join(works)}; none: all")
    parser.add_argument("--systems", default=",".join(NAMES), help="names, separated by commas")
    parser.add_argument("--rounds", type=int, help="rounds to take the median of")
    parser.add_argument("--quick", action="store_true", help="small and short, to try it out; writes no results")
    parser.add_argument("--directory", type=Path, help="where stores go: its disk is what is measured")
    options = parser.parse_args()
    if wrong := set(options.works) - set(works):
        parser.error(f"cannot measure {', '.join(sorted(wrong))}: there are {', '.join(works)}")
    if not PEERS_PYTHON.exists():
        parser.error("cannot measure peers: run `make bench-peers`, which installs them")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # leaves the `with` blocks, as Ctrl-C does
    names = [name for name in options.systems.split(",") if name not in NEEDS_REDIS or redis_program()]
    for name in options.works or works:
        work, measure = works[name]
        found = run(work, measure, names, options.rounds, options.quick, options.directory)
        show(found)
        if not options.quick:
            RESULTS.mkdir(exist_ok=True)
            (RESULTS / f"peers_{name}.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")


def run(
    work: Work,
    measure: Callable[[str, Path, bool], Found],
    names: list[str],
    rounds: int | None,
    quick: bool,
    directory: Path | None,
) -> dict[str, Any]:
    """The result of one kind of work, as it is written."""
    planned = rounds or (1 if quick else work.rounds)
    values: dict[str, dict[str, list[float]]] = {name: {} for name in names}
    failed: dict[str, str] = {}
    others_of: dict[str, list[float]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory(prefix="tdb-", dir=directory) as scratch:
        machine, others, began = facts(Path(scratch)), Others(), time.monotonic()
        for turn in range(planned):
            for name in names:
                print(f"{work.name} {NAMES[name]}, round {turn + 1} of {planned}", file=sys.stderr, flush=True)
                meanwhile = Others()
                try:
                    for figure, value in measure(name, Path(scratch), quick).items():
                        values[name].setdefault(figure, []).append(value)
                except SystemExit as failure:  # the others can still be measured
                    failed[name] = str(failure)
                    print(failure, file=sys.stderr)
                others_of[name].append(meanwhile.cores())
        cores = others.cores()
    return {
        "work": work.name,
        "what": work.what,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine,
        "versions": versions(),
        "others_cores": round(cores, 2),
        "rounds": planned,
        "quick": quick,
        "seconds": round(time.monotonic() - began, 1),
        "figures": work.figures,
        "systems": [
            {
                "name": NAMES[name],
                "store": STORES[name],
                "others_cores": round(statistics.median(others_of[name]), 2),
                "median": {figure: float(f"{statistics.median(found):.4g}") for figure, found in values[name].items()},
                "values": {figure: [float(f"{each:.4g}") for each in found] for figure, found in values[name].items()},
            }
            for name in names
            if values[name]
        ],
        "failed": {NAMES[name]: reason for name, reason in failed.items()},
    }


def show(found: dict[str, Any]) -> None:
    print(f"\n{found['work']}: {found['what']}; others used {found['others_cores']} cores, {found['seconds']:.0f} s")
    for figure, what in found["figures"].items():
        cells = (f"{each['name']} {number(each['median'].get(figure))}" for each in found["systems"])
        print(f"  {what}: {', '.join(cells)}")


# --------------------------------------------------------------------------- w1


def w1(name: str, scratch: Path, quick: bool) -> Found:
    seconds = 0.5 if quick else 2.0
    found: Found = {}
    for clients, word in ((1, "one"), (8, "eight")):
        with system(name, scratch / "x") as peer:
            if name == OURS:
                with Daemon(peer.home) as daemon:
                    seen = registering(peer, clients, seconds, daemon)
                    if clients == 8:
                        found["lean"] = load(daemon.socket, connections=8, seconds=seconds).rate
                        found["batch"] = load(daemon.socket, batch=BATCH, seconds=seconds).rate
                    daemon.stop()
            else:
                seen = registering(peer, clients, seconds)
        found |= {word: seen.rate, f"{word}_p99": seen.p99_ms}
        if clients == 8:
            found |= {"eight_max": seen.max_ms, "cpu": seen.cpu_us}
    return found


# --------------------------------------------------------------------------- w2


def w2(name: str, scratch: Path, quick: bool) -> Found:
    count, lasting = (1000, 12.0) if quick else (10_000, 30.0)
    with system(name, scratch / "x", interval=INTERVAL, lasts=LASTS) as peer:
        if name == OURS:
            return watched_by_us(peer.home, count, lasting)
        peer.start_workers()
        at = time.monotonic() + 5.0 + count / 600  # by then all are registered and the workers have started
        finished([peer.client(0, at, count, "due")], 120)
        late_start = time.monotonic() - at
        if late_start > 0:
            raise SystemExit(f"cannot measure {name}: registering took {late_start:.1f} s too long")
        time.sleep(max(0.0, at - time.monotonic()))
        cpu = peer.cpu()
        time.sleep(lasting + GRACE)
        cpu = peer.cpu() - cpu
        rss, pss = peer.memory()
        due = [at + n / count * INTERVAL for n in range(count)]
        return lateness(looks(peer.home / "looks"), due, at, lasting, cpu) | {"rss": rss / 2**20, "pss": pss / 2**20}


def watched_by_us(home: Path, count: int, lasting: float) -> Found:
    """As in P6: looks are due when the daemon has said they are."""
    fill(home / "w", count, ZONES)
    settings = f"answer_after = {LASTS}\none_by_one = true\nlog_calls = true"
    with Daemon(home, config(zones_table(ZONES, settings), poll_interval=INTERVAL)) as daemon:
        daemon.until("all were taken in", lambda status: not status["loading"])
        time.sleep(INTERVAL)  # all of them were overdue
        told = told_tasks(daemon)
        cpu, at = daemon.cpu(), time.time()
        time.sleep(lasting + GRACE)
        cpu = daemon.cpu() - cpu
        rss, pss = memory_of_family(daemon.pid)
        daemon.stop()
        calls = calls_of_tasks(daemon, ZONES)
    due = [first + max(0.0, math.ceil((at - first) / INTERVAL) * INTERVAL) for first in told.values()]
    looks = [(number, when) for number, uid in enumerate(told) for when in calls.get(uid, [])]
    return lateness(looks, due, at, lasting, cpu) | {"rss": rss / 2**20, "pss": pss / 2**20}


def lateness(looks: Sequence[tuple[int, float]], due: Sequence[float], at: float, lasting: float, cpu: float) -> Found:
    """Each operation's first look belongs to its point in `due`, the next one to an interval later, and so on: who looks ten
    seconds after the last look falls behind. Looks count from `at` on, for as many seconds as it lasts."""
    made = [0] * len(due)
    late = []
    for operation, when in sorted(looks, key=lambda look: look[1]):
        if max(at, due[operation] - EARLY) <= when < at + lasting + GRACE:
            late.append(when - due[operation] - made[operation] * INTERVAL)
            made[operation] += 1
    wanted = sum(math.ceil((at + lasting - first) / INTERVAL) for first in due)
    late.sort()
    count = max(1, len(late))
    return {
        "done": min(100.0, 100.0 * len(late) / wanted),
        "p50": late[count // 2] * 1e3 if late else 0.0,
        "p99": late[int(0.99 * (count - 1))] * 1e3 if late else 0.0,
        "cpu": cpu / count * 1e3,
    }


# --------------------------------------------------------------------------- w3


def w3(name: str, scratch: Path, quick: bool) -> Found:
    count, patience = (100, 20.0) if quick else (1000, 20.0)
    with Receiver(scratch / "r") as receiver, system(name, scratch / "x", lasts=0.0, tell=receiver.url, interval=0.001) as peer:
        if name == OURS:
            return told_by_us(peer.home, receiver, count, patience)
        peer.start_workers()
        at = time.monotonic() + 5.0  # the workers have started and hold what is due then
        finished([peer.client(0, at, count, "due")], 60)
        time.sleep(max(0.0, at - 0.1 - time.monotonic()))
        cpu = peer.cpu()
        arrivals = await_all(receiver, count, at + patience)
        return told(arrivals, count, at, peer.cpu() - cpu)


def told_by_us(home: Path, receiver: Receiver, count: int, patience: float) -> Found:
    zone = '\n[zones.sim]\nbackend = "simulated"\nscenario = [{ id = "*", finish_after = 0.01 }]\n'
    with Daemon(home, config(zone)) as daemon:
        daemon.ask("POST", "/v1/zones/sim/pause")
        daemon.fill(count, lambda n: {"id": f"op-{n}", "action": "simulated", "zone": "sim", "callback": {"url": receiver.url}})
        time.sleep(1.0)
        cpu, at = daemon.cpu(), time.monotonic()
        daemon.ask("POST", "/v1/zones/sim/resume")
        arrivals = await_all(receiver, count, at + patience)
        found = told(arrivals, count, at, daemon.cpu() - cpu)
        daemon.stop()
    return found


def await_all(receiver: Receiver, count: int, end: float) -> Arrivals:
    while receiver.count() < count and time.monotonic() < end:
        time.sleep(0.02)
    return receiver.arrivals()


def told(arrivals: Arrivals, count: int, at: float, cpu: float) -> Found:
    came = len(arrivals.times)
    lasted = arrivals.times[-1] - arrivals.times[0] if came > 1 else 0.0
    return {
        "rate": (came - 1) / lasted if lasted > 0 else 0.0,
        "all": (arrivals.times[-1] if came else time.monotonic()) - at,
        "cpu": cpu / max(1, came) * 1e3,
        "missing": float(max(0, count - came)),
    }


if __name__ == "__main__":
    main()
