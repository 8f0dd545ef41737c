"""P12: starting with 100,000 live tasks that are overdue, with 1,000,000, and with none."""

import statistics
from pathlib import Path

from benchmarks.harness.daemon import Daemon, config
from benchmarks.harness.filling import fill, zone_name, zones_table
from benchmarks.harness.row import Bench, Figure, Row, at_most, main

TASKS, MANY = 100_000, 1_000_000
ZONES, MANY_ZONES = 100, 1000
INTERVAL = 10.0
STARTS = 5  # with an empty store, in each round
MIB = 2**20

ROW = Row(
    "P12",
    "start with 100,000 overdue live tasks",
    [
        Figure("ready", "requests are answered", "s", at_most(0.5)),
        Figure("first", "first poll", "s", at_most(0.5)),
        Figure("loaded", "all are scheduled", "s", at_most(2)),
        Figure("polled", "all were polled once", "s", at_most(12)),
        Figure("memory", "RSS at its highest", "MiB", at_most(200)),
        Figure("first_of_many", "first poll, 1,000,000 tasks", "s", at_most(2)),
        Figure("empty", "requests are answered, empty store", "s", at_most(0.3)),
        Figure("empty_cpu", "CPU of the daemon until then", "ms"),
    ],
    rounds=1,
    note="seconds since the process was started; a poll counts when the backend is called for tasks",
)


def measure(bench: Bench) -> None:
    for turn in bench.rounds():
        few = Start(bench, f"few{turn}", bench.count(TASKS), ZONES)
        many = Start(bench, f"many{turn}", bench.count(MANY), MANY_ZONES, to_the_end=False)
        bench.note(
            ready=few.ready,
            first=few.first,
            loaded=few.loaded,
            polled=few.polled,
            memory=few.memory / MIB,
            first_of_many=many.first,
            **starts_empty(bench, turn),
        )


def starts_empty(bench: Bench, turn: int) -> dict[str, float]:
    """The median of several starts."""
    ready, cpu = [], []
    for number in range(STARTS):
        with Daemon(bench.home(f"empty{turn}-{number}"), wait=False) as daemon:
            ready.append(daemon.await_ready())
            cpu.append(daemon.cpu() * 1e3)
            daemon.stop()
    return {"empty": statistics.median(ready), "empty_cpu": statistics.median(cpu)}


class Start:
    """What was seen of one start. `to_the_end`: until all tasks were polled."""

    def __init__(self, bench: Bench, name: str, tasks: int, zones: int, to_the_end: bool = True) -> None:
        home = bench.home(name)
        fill(home / "w", tasks, zones)
        answer = "log_calls = true"
        with Daemon(home, config(zones_table(zones, answer), poll_interval=INTERVAL), wait=False) as daemon:
            logs = [Path(daemon.workspace, "zones", zone_name(number), "calls.log") for number in range(zones)]
            self.ready = daemon.await_ready()
            self.first = daemon.await_that("a zone was polled", lambda: any(log.exists() for log in logs))
            if not to_the_end:
                daemon.kill()
                return
            self.loaded = daemon.until("all were taken in", lambda status: not status["loading"])
            self.polled = daemon.await_that("all were polled", lambda: all(log.exists() for log in logs))
            self.memory = daemon.peak_rss()
            daemon.stop()


if __name__ == "__main__":
    main(ROW, measure)
