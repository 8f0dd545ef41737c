"""The store by itself: group commit, refusals, full disks, failed writes, plans, versions."""

import asyncio
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import pytest
from tornado.platform.asyncio import AsyncIOLoop

from task_daemon.core.errors import Conflict, Degraded, Draining, OutcomeUnknown, StoreError, StoreFull
from task_daemon.core.model import Query
from task_daemon.core.ports import NewTask
from task_daemon.engine.local import store as store_module
from task_daemon.engine.local.migrate import migrate
from task_daemon.engine.local.reading import Reading, finding
from task_daemon.engine.local.rows import SQL, event_of, repeated
from task_daemon.engine.local.store import Store
from task_daemon.engine.local.tables import Tables
from tests.making import a_task
from tests.waiting import eventually

STORES = Path(__file__).parents[2] / "data" / "stores"


class Open:
    def __init__(self, path: Path) -> None:
        self.fatal: list[BaseException] = []
        self.committed = 0
        self.store = Store(path / "store.db", self._count, self.fatal.append)

    def _count(self) -> None:
        self.committed += 1

    async def add(self, *names: str) -> None:
        await self.store.write(lambda tables: tables.add([NewTask(a_task(id=name)) for name in names], lambda _uid: None))

    async def count(self) -> int:
        return len((await self.store.read(lambda look: look.find(Query(limit=10_000))))[0])


Opened = TypeVar("Opened", bound=Open)


def kept_open(io_loop: AsyncIOLoop, opened: Opened) -> Iterator[Opened]:
    """For a fixture: open until the test is over."""
    io_loop.run_sync(lambda: opened.store.open(0.0))
    yield opened
    io_loop.run_sync(opened.store.close)


@pytest.fixture
def opened(io_loop: AsyncIOLoop, short_path: Path) -> Iterator[Open]:
    yield from kept_open(io_loop, Open(short_path))


async def test_operations_share_commits_when_they_arrive_together(opened: Open) -> None:
    await asyncio.gather(*(opened.add(f"d{n}") for n in range(500)))
    assert opened.store.commits < 100
    assert opened.committed == opened.store.commits
    assert await opened.count() == 500


async def test_who_registers_goes_on_before_the_commit_is_told_and_others_after(opened: Open) -> None:
    order: list[tuple[str, int]] = []

    async def write(what: str) -> None:
        new = [NewTask(a_task(id=what))]
        registers = new if what == "registration" else ()
        await opened.store.write(lambda tables: tables.add(new, lambda _uid: None), registers=registers)
        order.append((what, opened.committed))

    await asyncio.gather(write("other"), write("registration"))
    assert order == [("registration", 0), ("other", 1)]


async def test_others_of_the_group_are_stored_when_one_is_refused(opened: Open) -> None:
    await opened.add("known")

    async def refused() -> None:
        with pytest.raises(Conflict):
            await opened.store.write(lambda tables: tables.add([NewTask(a_task(id="known", timeout=1.0))], lambda _uid: None))

    await asyncio.gather(opened.add("a"), refused(), opened.add("b"))
    assert await opened.count() == 3


async def test_i10_refused_hear_of_a_failed_commit_before_everything_stops(opened: Open) -> None:
    order: list[str] = []
    opened.store._fatal = lambda _error: order.append("all stops")
    opened.store.connection.close()
    answer = asyncio.ensure_future(opened.store.write(lambda _tables: None))  # the store's own future
    answer.add_done_callback(lambda _: order.append("answered"))
    with pytest.raises(OutcomeUnknown):
        await answer
    await asyncio.to_thread(eventually, "both are told", lambda: len(order) == 2)
    assert order == ["answered", "all stops"]


async def test_others_of_the_group_are_stored_when_one_has_a_fault(opened: Open) -> None:
    def fault(tables: Tables) -> None:
        tables.add([NewTask(a_task(id="half"))], lambda _uid: None)
        raise ZeroDivisionError

    async def faulty() -> None:
        with pytest.raises(ZeroDivisionError):
            await opened.store.write(fault)

    await asyncio.gather(opened.add("a"), faulty(), opened.add("b"))
    events = await opened.store.read(lambda look: look.events(0, 10, None))
    assert [event.seq for event in events] == [1, 2]
    assert await opened.count() == 2
    assert opened.fatal == []


async def test_slow_commit_is_shared_with_who_may_be_back_in_a_moment(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "PATIENCE", 1e3)
    store = opened.store
    await store.write(lambda _tables: None)
    before, store.commit_seconds, store._at_once = store.commits, 1.0, 2
    first = asyncio.ensure_future(opened.add("a"))
    await asyncio.to_thread(
        eventually, "the writer has taken the first", lambda: store._operations.empty() and not store._arrived
    )
    await asyncio.gather(first, opened.add("b"))
    assert store.commits == before + 1


async def test_full_disk_is_refused_and_writing_goes_on_when_there_is_room_again(opened: Open) -> None:
    await opened.add("a")
    (pages,) = opened.store.connection.execute("PRAGMA page_count").fetchone()
    opened.store.connection.execute(f"PRAGMA max_page_count = {pages}").fetchall()
    with pytest.raises(StoreFull):
        await opened.add(*(f"big{n}" for n in range(1000)))
    opened.store.connection.execute("PRAGMA max_page_count = 1000000").fetchall()
    await opened.add("b")
    assert await opened.count() == 2
    assert opened.fatal == []


async def test_i10_outcome_is_unknown_and_nothing_more_is_taken_when_the_connection_fails(opened: Open) -> None:
    await opened.add("a")
    opened.store.connection.close()
    with pytest.raises(OutcomeUnknown):
        await opened.add("b")
    await asyncio.sleep(0)
    assert len(opened.fatal) == 1
    with pytest.raises(Degraded):
        await opened.add("c")
    assert len(opened.fatal) == 1
    assert opened.store.facts()["writable"] is False


async def test_blocking_write_answers_a_thread(opened: Open) -> None:
    answer = await asyncio.to_thread(opened.store.write_blocking, lambda tables: tables.meta("clean"))
    assert answer is None


async def test_everything_is_refused_when_the_store_is_closed(short_path: Path) -> None:
    opened = Open(short_path)
    await opened.store.open(0.0)
    await opened.store.close()
    with pytest.raises(Draining):
        await opened.add("a")
    with pytest.raises(Draining):
        await opened.count()


async def test_store_is_durable_by_its_settings(opened: Open) -> None:
    settings = {name: opened.store.connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")}
    assert settings == {"journal_mode": "wal", "synchronous": 2}
    with pytest.raises(Degraded):
        await opened.store.read(lambda look: look._sql.execute("DELETE FROM task"))


async def test_newer_store_is_refused_with_what_to_do(short_path: Path) -> None:
    with sqlite3.connect(short_path / "store.db") as connection:
        connection.execute("PRAGMA user_version = 99")
        connection.execute("CREATE TABLE future (x)")
    connection.close()
    with pytest.raises(StoreError, match="version 99"):
        await Open(short_path).store.open(0.0)


OLD_EVENTS = "SELECT uid, type, time, task_seq, detail, seq FROM event ORDER BY seq"
BELONGING = (
    "SELECT delivery.id, task.uid FROM delivery JOIN task ON task.n = delivery.task ORDER BY 1",
    "SELECT event.seq, task.uid FROM event JOIN task ON task.n = event.task WHERE type <> 'task.registered' ORDER BY 1",
    "SELECT progress.body, task.uid FROM progress JOIN task ON task.n = progress.task ORDER BY 1, 2",
)


@pytest.mark.parametrize("lost", [False, True])
def test_every_event_keeps_its_number_when_registrations_become_rows_of_tasks(lost: bool, short_path: Path) -> None:
    path = Path(shutil.copy(STORES / "2.db", short_path))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE meta SET value = '1000' WHERE name = 'last_seq'")
        connection.execute("INSERT OR IGNORE INTO meta (name, value) VALUES ('last_seq', '1000')")
        connection.execute("INSERT OR REPLACE INTO progress SELECT n, task_seq, uid FROM task WHERE ended = 0")
        if lost:
            connection.execute("DELETE FROM event WHERE seq IN (1, 3)")
        before = [event_of(row) for row in connection.execute(OLD_EVENTS)]
        belonging = [connection.execute(sql).fetchall() for sql in BELONGING]
        assert all(belonging), "nothing to compare"
        migrate(connection, path, 3)
        after = Reading(connection).events(0, 1000, None)
        assert after[: len(before)] == before
        again = [(event.type, event.seq) for event in after[len(before) :]]
        assert again == ([("task.registered", 1001), ("task.registered", 1002)] if lost else []), "what was lost is told again"
        assert [connection.execute(sql).fetchall() for sql in BELONGING] == belonging


async def test_store_in_a_missing_directory_is_refused(short_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot open the store"):
        await Open(short_path / "nowhere").store.open(0.0)


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("live", "task_id"),
        ("load_live", "task_zone"),
        ("load_untidy", "task_untidy"),
        ("old", "task_finished"),
        ("next_zone", "task_zone"),
        ("newest_beyond", "task_finished"),
        ("events_of", "event_task"),
        ("lines", "delivery_pending"),
        ("targets", "delivery_pending"),
        ("owner_waiting", "delivery_owner"),
        ("deliveries_of", "delivery_task"),
        ("pending_of", "delivery_task"),
        ("counts_of", "delivery_task"),
        ("task", "task_uid"),
        ("move_task", "task_uid"),
        ("end_task", "task_uid"),
        ("save_task", "task_uid"),
        ("record", "delivery_id"),
        ("events", "PRIMARY KEY"),
        ("key", "task_key"),
        ("key", "PRIMARY KEY"),
        ("purge_events", "event_task"),
        ("purge_keys", "idempotency_task"),
    ],
)
async def test_query_uses_its_index(opened: Open, name: str, index: str) -> None:
    sql = repeated(name, 2) if "[" in SQL[name] else SQL[name]
    count = max([int(number) for number in re.findall(r"\?(\d+)", sql)] or [sql.count("?")])
    plan = opened.store.connection.execute(f"EXPLAIN QUERY PLAN {sql}", ["1"] * count).fetchall()
    details = [row[3] for row in plan]
    assert any(index in detail for detail in details), details
    assert not any("TEMP B-TREE" in detail for detail in details), details


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (Query(), "PRIMARY KEY"),
        (Query(before_uid="x"), "INTEGER PRIMARY KEY"),
        (Query(zone="z"), "task_zone"),
        (Query(id="x"), "task_id"),
        (Query(region_task_id="x"), "task_region"),
        (Query(id="x", zone="z", action="a", done=False), "task_"),
    ],
)
async def test_listing_uses_an_index(opened: Open, query: Query, index: str) -> None:
    sql, values = finding(query)
    details = [row[3] for row in opened.store.connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)]
    plain = query == Query() and details[0] == "SCAN task"  # the table itself is in the order of registration
    assert plain or any(index in detail for detail in details), details
    few = query.id is not None  # the tasks of one id, whose index keeps live ones apart, are sorted
    assert few or not any("TEMP B-TREE" in detail for detail in details), details
