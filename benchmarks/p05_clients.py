"""P5: registrations by the clients as they are shipped: `Client`, `register_task()` and `taskctl register`."""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.harness.daemon import Daemon
from benchmarks.harness.row import Bench, Figure, Row, at_least, at_most, main
from benchmarks.peers.registering import Registered, registering
from benchmarks.peers.system import system

TASKCTL = str(Path(sys.executable).with_name("taskctl"))
CALLS = 10  # of the command line, in each round

ROW = Row(
    "P5",
    "registrations by the shipped clients, durable, each in a process of its own",
    [
        Figure("one", "`Client`, 1 process", "/s", at_least(2500), gate=1800),
        Figure("eight", "`Client`, 8 processes", "/s", at_least(5000), gate=3500),
        Figure("old_one", "`register_task()`, 1 process", "/s", at_least(2500), gate=1800),
        Figure("old_eight", "`register_task()`, 8 processes", "/s", at_least(5000), gate=3500),
        Figure("p99_eight", "`Client`, 8 processes, 99th percentile", "ms"),
        Figure("cpu_eight", "`Client`, 8 processes, CPU of all for one", "µs"),
        Figure("own_one", "`Client`, 1 process, CPU of the client for one", "µs"),
        Figure("own_old_one", "`register_task()`, 1 process, CPU of the client for one", "µs"),
        Figure("command", "`taskctl register`, one call", "ms", at_most(120)),
        Figure("ping", "`taskctl ping`, one call", "ms"),
        Figure("help", "`taskctl --help`", "ms", at_most(100)),
        Figure("importing", "`import task_client`, `Client` used", "ms"),
        Figure("python", "Python alone (`-c pass`), which is part of each of these", "ms"),
    ],
    rounds=3,
)


def measure(bench: Bench) -> None:
    for turn in bench.rounds():
        one, eight = (clients(bench, "task_daemon", count) for count in (1, 8))
        old_one, old_eight = (clients(bench, "register_task", count) for count in (1, 8))
        bench.note(
            one=one.rate,
            eight=eight.rate,
            old_one=old_one.rate,
            old_eight=old_eight.rate,
            p99_eight=eight.p99_ms,
            cpu_eight=eight.cpu_us,
            own_one=one.own_us,
            own_old_one=old_one.own_us,
            **commands(bench, turn),
        )


def clients(bench: Bench, name: str, count: int) -> Registered:
    with system(name, bench.directory / "x") as registrants, Daemon(registrants.home) as daemon:
        found = registering(registrants, count, bench.seconds(2), daemon)
        daemon.stop()
    return found


def commands(bench: Bench, turn: int) -> dict[str, float]:
    """Milliseconds, from the start of the process to its end; the median of several calls."""
    with Daemon(bench.home(f"d{turn}")) as daemon:
        taskctl = [TASKCTL, "--socket", daemon.socket]
        found = {
            "command": taken(lambda n: [*taskctl, "register", f"t-{n}", "simulated", "sim"]),
            "ping": taken(lambda _: [*taskctl, "ping"]),
            "help": taken(lambda _: [TASKCTL, "--help"]),
            "importing": taken(lambda _: [sys.executable, "-c", "import task_client; task_client.Client()"]),
            "python": taken(lambda _: [sys.executable, "-c", "pass"]),
        }
        daemon.stop()
    return found


def taken(words: Callable[[int], list[str]]) -> float:
    each = []
    for n in range(CALLS):
        began = time.perf_counter()
        subprocess.run(words(n), check=True, stdout=subprocess.DEVNULL)
        each.append(time.perf_counter() - began)
    return statistics.median(each) * 1e3


if __name__ == "__main__":
    main(ROW, measure)
