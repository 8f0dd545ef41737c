"""P5: registrations by the clients as they are shipped: `Client`, `register_task()` and `taskctl register`."""

import statistics
import subprocess
import sys
import time
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
            command=command(bench, turn),
        )


def clients(bench: Bench, name: str, count: int) -> Registered:
    with system(name, bench.directory / "x") as registrants, Daemon(registrants.home) as daemon:
        found = registering(registrants, count, bench.seconds(2), daemon)
        daemon.stop()
    return found


def command(bench: Bench, turn: int) -> float:
    """Milliseconds, from the start of the process to its end."""
    taken = []
    with Daemon(bench.home(f"d{turn}")) as daemon:
        for n in range(CALLS):
            words = [TASKCTL, "--socket", daemon.socket, "register", f"t-{n}", "simulated", "sim"]
            began = time.perf_counter()
            subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
            taken.append(time.perf_counter() - began)
        daemon.stop()
    return statistics.median(taken) * 1e3


if __name__ == "__main__":
    main(ROW, measure)
