"""P15: what one page and one transition cost with 1,000 and with 1,000,000 tasks in the store, and what one poll costs each task
with few and many of them.

The store's own operations, in this process: what they read and write is the same whatever the number of tasks, so the CPU time
of each is compared.
"""

import sqlite3
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.harness.daemon import Daemon, config
from benchmarks.harness.filling import IN_ONE_COMMIT, fill, running, zone_name, zones_table
from benchmarks.harness.row import Bench, Figure, Row, at_most, main
from benchmarks.harness.watching import watch
from task_daemon.core import transitions
from task_daemon.core.model import Change, Query, Report, Task, Verdict
from task_daemon.core.ports import NewTask
from task_daemon.engine.local.reading import Reading
from task_daemon.engine.local.store import CACHE
from task_daemon.engine.local.tables import Tables

FEW, MANY = 1000, 1_000_000
POLLED_FEW, POLLED_MANY = 10_000, 100_000
PIECES, PIECE = 9, 30  # times, operations of each kind at a time
INTERVAL = 5.0
WINDOWS = 5  # of one interval, for each of the two

ROW = Row(
    "P15",
    "cost as work grows: 1,000,000 tasks compared with 1,000",
    [
        Figure("register", "one registration", "×", at_most(1.1)),
        Figure("move", "one transition", "×", at_most(1.1)),
        Figure("page", "one page of 50", "×", at_most(1.1)),
        Figure("poll", "CPU for one task and poll, 100,000 tasks compared with 10,000", "×", at_most(1.1)),
        Figure("register_us", "one registration in the store of 1,000,000, CPU", "µs"),
        Figure("move_us", "one transition in the store of 1,000,000, CPU", "µs"),
        Figure("page_us", "one page of the store of 1,000,000, CPU", "µs"),
    ],
    rounds=1,
    note="in the store itself, without a flush; the page is one of a zone, from the middle",
)


def measure(bench: Bench) -> None:
    for turn in bench.rounds():
        with Stored(bench.home(f"{turn}-few"), FEW) as few, Stored(bench.home(f"{turn}-many"), bench.count(MANY)) as many:
            found = {name: compared(few, many, name) for name in ("register", "move", "page")}
        bench.note(
            poll=polls_compared(bench, turn),
            **{name: large / small for name, (small, large) in found.items()},
            **{f"{name}_us": large for name, (_, large) in found.items()},
        )


class Stored:
    """A store of so many tasks, and what is done to it; `n` counts from 0."""

    def __init__(self, workspace: Path, tasks: int) -> None:
        fill(workspace, tasks, 10)
        self._connection = sqlite3.connect(workspace / "store.db", isolation_level=None)
        self._connection.execute("PRAGMA synchronous = OFF")
        self._connection.execute(f"PRAGMA cache_size = -{CACHE}")
        self._tables, self._reading = Tables(self._connection), Reading(self._connection)
        self._some, _ = self._reading.live((zone_name(5), 0), PIECES * PIECE)
        self._fresh = [running(tasks + IN_ONE_COMMIT + n, zone_name(5), time.time()) for n in range(PIECES * PIECE)]
        self._page = Query(zone=zone_name(5), before_uid=self._some[len(self._some) // 2].uid, limit=50)
        self._now = time.time()

    def register(self, n: int) -> None:
        self._tables.add([NewTask(self._fresh[n])], nobody)

    def move(self, n: int) -> None:
        self._tables.apply([moved(self._some[n], self._now)], nobody)

    def page(self, _n: int) -> None:
        self._reading.find(self._page)

    def cost(self, name: str, piece: int) -> float:
        """Microseconds of CPU of one, without the commit."""
        call = getattr(self, name)
        if name != "page":
            self._connection.execute("BEGIN")
        began = time.process_time()
        for n in range(piece * PIECE, (piece + 1) * PIECE):
            call(n)
        taken = time.process_time() - began
        if name != "page":
            self._connection.execute("COMMIT")
        return taken / PIECE * 1e6

    def __enter__(self) -> "Stored":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()


def compared(few: Stored, many: Stored, name: str) -> tuple[float, float]:
    """Medians, taken in turns: this machine's speed changes from one second to the next."""
    both = [(few.cost(name, piece), many.cost(name, piece)) for piece in range(PIECES)]
    return statistics.median(small for small, _ in both), statistics.median(large for _, large in both)


def moved(task: Task, now: float) -> Change:
    change = transitions.apply(task, Report(Verdict.SUCCEEDED), now)
    assert change is not None
    return change


def nobody(_uid: str) -> None:
    return None


def polls_compared(bench: Bench, turn: int) -> float:
    """What one task and poll of many cost, compared with one of few: both daemons are there, and looked at in turns."""
    with (
        watching(bench.home(f"{turn}-p-few"), bench.count(POLLED_FEW), 10) as few,
        watching(bench.home(f"{turn}-p-many"), bench.count(POLLED_MANY), 100) as many,
    ):
        both = [(watch(few, INTERVAL).cpu, watch(many, INTERVAL).cpu) for _ in range(WINDOWS)]
    small, large = (statistics.median(each) for each in zip(*both, strict=True))
    times: float = large / bench.count(POLLED_MANY) / (small / bench.count(POLLED_FEW))
    return times


@contextmanager
def watching(home: Path, tasks: int, zones: int) -> Iterator[Daemon]:
    """A daemon that polls so many tasks, and is killed at the end."""
    fill(home / "w", tasks, zones)
    with Daemon(home, config(zones_table(zones), poll_interval=INTERVAL)) as daemon:
        daemon.until("all were taken in", lambda status: not status["loading"])
        watch(daemon, INTERVAL)
        yield daemon


if __name__ == "__main__":
    main(ROW, measure)
