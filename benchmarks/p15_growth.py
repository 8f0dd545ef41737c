"""P15: what one page and one transition cost with 1,000 and with 1,000,000 tasks in the store, and what one poll costs each task
with few and many of them.

The store's own operations, in this process: what they read and write is the same whatever the number of tasks, so the CPU time
of each is compared.
"""

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.harness.daemon import Daemon, config
from benchmarks.harness.filling import IN_ONE_COMMIT, fill, running, zone_name, zones_table
from benchmarks.harness.row import Bench, Figure, Row, at_most, main
from benchmarks.harness.watching import watch
from task_daemon.core import transitions
from task_daemon.core.model import Change, Query, Report, Task, Verdict
from task_daemon.core.ports import NewTask
from task_daemon.engine.local.reading import Reading
from task_daemon.engine.local.tables import Tables

FEW, MANY = 1000, 1_000_000
POLLED_FEW, POLLED_MANY = 10_000, 100_000
TURNS = 300
INTERVAL = 5.0

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
        few, many = (costs(bench.home(f"{turn}-{n}"), n) for n in (FEW, bench.count(MANY)))
        small, large = (
            poll_cost(bench, f"{turn}-p{n}", bench.count(n), zones) for n, zones in ((POLLED_FEW, 10), (POLLED_MANY, 100))
        )
        bench.note(
            register=many[0] / few[0],
            move=many[1] / few[1],
            page=many[2] / few[2],
            poll=large / small,
            register_us=many[0],
            move_us=many[1],
            page_us=many[2],
        )


def costs(workspace: Path, tasks: int) -> tuple[float, float, float]:
    """Microseconds of CPU of a registration, a transition and a page."""
    fill(workspace, tasks, 10)
    connection = sqlite3.connect(workspace / "store.db", isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")
    tables, reading = Tables(connection), Reading(connection)
    some, _ = reading.live((zone_name(5), 0), TURNS)
    fresh = [running(tasks + IN_ONE_COMMIT + n, zone_name(5), time.time()) for n in range(TURNS)]
    page = Query(zone=zone_name(5), before_uid=some[len(some) // 2].uid, limit=50)
    now = time.time()
    connection.execute("BEGIN")
    found = (
        each(lambda n: tables.add([NewTask(fresh[n])], nobody)),
        each(lambda n: tables.apply([moved(some[n % len(some)], now)], nobody)),
        each(lambda _: reading_page(connection, reading, page)),
    )
    connection.close()
    return found


def reading_page(connection: sqlite3.Connection, reading: Reading, page: Query) -> None:
    if connection.in_transaction:
        connection.execute("COMMIT")
    reading.find(page)


def moved(task: Task, now: float) -> Change:
    change = transitions.apply(task, Report(Verdict.SUCCEEDED), now)
    assert change is not None
    return change


def nobody(_uid: str) -> None:
    return None


def each(call: Callable[[int], object]) -> float:
    call(0)  # the first reads pages
    began = time.process_time()
    for n in range(1, TURNS):
        call(n)
    return (time.process_time() - began) / (TURNS - 1) * 1e6


def poll_cost(bench: Bench, name: str, tasks: int, zones: int) -> float:
    """Seconds of CPU for one task and poll."""
    home = bench.home(name)
    fill(home / "w", tasks, zones)
    with Daemon(home, config(zones_table(zones), poll_interval=INTERVAL)) as daemon:
        daemon.until("all were taken in", lambda status: not status["loading"])
        watch(daemon, INTERVAL)
        window = watch(daemon, 2 * INTERVAL)
        daemon.kill()
    return window.cpu / (tasks * 2)


if __name__ == "__main__":
    main(ROW, measure)
