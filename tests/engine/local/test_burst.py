"""Which registrations the event loop commits itself, and that nothing else changes by it."""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tornado.platform.asyncio import AsyncIOLoop

from task_daemon.core import crash
from task_daemon.core.errors import Conflict, Degraded, Draining, OutcomeUnknown, StoreFull
from task_daemon.core.ports import NewTask
from task_daemon.engine.local import burst as burst_module
from task_daemon.engine.local import store as store_module
from task_daemon.engine.local import wal
from task_daemon.engine.local.burst import BEGINS_AFTER, JUST_NOW, MOST, QUICK, Burst
from tests.api.conftest import turns_until
from tests.engine.local.test_store import Open, kept_open
from tests.making import a_task


class Registering(Open):
    """`by`: for each commit of a registration that went well, whether the loop made it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.path = self.store.path
        self.by: list[bool] = []

    async def one(self, name: str, timeout: float = 60.0) -> None:
        new = [NewTask(a_task(id=name, timeout=timeout))]
        await self.store.write(
            lambda tables: tables.add(new, lambda _uid: None),
            lambda _result: self.by.append(threading.current_thread() is threading.main_thread()),
            new=True,
            registers=new,
        )
        await asyncio.sleep(0)

    async def until_the_loop_commits(self) -> None:
        for number in range(BEGINS_AFTER + 1):
            await self.one(f"before-{number}")
        assert self.by == [False] * BEGINS_AFTER + [True]
        self.by.clear()

    def stored(self) -> int:
        with closing(sqlite3.connect(self.path)) as beside:
            (count,) = beside.execute("SELECT count(*) FROM task").fetchone()
        return int(count)

    async def sequences(self) -> list[int]:
        return [event.seq for event in await self.store.read(lambda look: look.events(0, 1000, None))]


@pytest.fixture(autouse=True)
def every_disk_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(burst_module, "QUICK", 60.0)
    monkeypatch.setattr(burst_module, "JUST_NOW", 60.0)


@pytest.fixture
def registering(io_loop: AsyncIOLoop, short_path: Path) -> Iterator[Registering]:
    yield from kept_open(io_loop, Registering(short_path))


async def test_the_loop_commits_what_is_registered_one_after_the_other(registering: Registering) -> None:
    await registering.until_the_loop_commits()
    for number in range(5):
        await registering.one(f"d-{number}")
    assert registering.by == [True] * 5
    assert registering.stored() == BEGINS_AFTER + 6


async def test_what_follows_from_commits_of_the_loop_is_told_for_many_of_them_at_once(
    short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "TELL_WITHIN", 3600.0)
    registering = Registering(short_path)
    await registering.store.open(0.0)
    await registering.until_the_loop_commits()
    await registering.one("d")
    assert registering.committed == BEGINS_AFTER
    await registering.store.write(lambda _tables: None)
    assert registering.committed == BEGINS_AFTER + 1, "the thread's are told at once, with all that there is"
    await registering.store.close()
    assert registering.committed == BEGINS_AFTER + 2, "nothing is left untold"


async def test_what_follows_from_a_commit_of_the_loop_is_told_soon(
    registering: Registering, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "TELL_WITHIN", 0.0)
    await registering.until_the_loop_commits()
    await turns_until(lambda: registering.committed == BEGINS_AFTER + 1)
    await registering.one("d")
    await turns_until(lambda: registering.committed == BEGINS_AFTER + 2)


@pytest.mark.parametrize("limit", ["QUICK", "JUST_NOW"])
async def test_i5_the_thread_commits_on_a_slow_disk_and_for_who_registers_now_and_then(
    limit: str, registering: Registering, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(burst_module, limit, 0.0)
    for number in range(20):
        await registering.one(f"d-{number}")
    assert registering.by == [False] * 20


@pytest.mark.parametrize("limit", ["QUICK", "JUST_NOW"])
async def test_i5_a_burst_ends_with_a_slow_commit_or_a_pause(
    limit: str, registering: Registering, monkeypatch: pytest.MonkeyPatch
) -> None:
    await registering.until_the_loop_commits()
    monkeypatch.setattr(burst_module, limit, 0.0)
    await registering.one("d")
    await registering.one("e")
    assert registering.by == [limit == "QUICK", False]


async def test_the_thread_commits_together_what_comes_in_one_turn(registering: Registering) -> None:
    await registering.until_the_loop_commits()
    before = registering.store.commits
    await asyncio.gather(*(registering.one(f"d-{number}") for number in range(8)))
    assert registering.by == [True] + [False] * 7
    assert registering.store.commits == before + 2
    await registering.one("after")
    assert registering.by[-1] is False, "nobody is alone now"


async def test_other_operations_are_left_to_the_thread_and_a_burst_goes_on_after_them(registering: Registering) -> None:
    await registering.until_the_loop_commits()
    assert await registering.store.write(lambda _tables: threading.current_thread().name) == "store-writer"
    await registering.one("after")
    assert registering.by == [True]


async def test_a_registration_that_comes_while_something_else_is_written_is_left_to_the_thread(registering: Registering) -> None:
    await registering.until_the_loop_commits()
    other = registering.store.write(lambda _tables: threading.current_thread().name)
    await registering.one("beside")
    assert await other == "store-writer"
    await registering.one("after")
    assert registering.by == [False, True]


async def test_i5_a_locked_store_does_not_hold_the_loop_up(registering: Registering) -> None:
    await registering.until_the_loop_commits()
    assert registering.store.connection.execute("PRAGMA busy_timeout").fetchone() == (0,)
    with closing(sqlite3.connect(registering.path, isolation_level=None)) as beside:
        beside.execute("BEGIN IMMEDIATE")
        waiting = asyncio.ensure_future(registering.one("d"))
        await asyncio.sleep(0)
        assert not waiting.done()
        beside.execute("ROLLBACK")
    await waiting
    assert registering.by == [False]
    assert await registering.sequences() == list(range(1, BEGINS_AFTER + 3))


async def test_what_is_known_already_is_found_by_the_thread(registering: Registering) -> None:
    await registering.until_the_loop_commits()
    with pytest.raises(Conflict):
        await registering.one("before-0", timeout=61.0)
    assert registering.stored() == BEGINS_AFTER + 1
    await registering.one("d")
    assert await registering.sequences() == list(range(1, BEGINS_AFTER + 3))


async def test_the_answer_is_made_ready_once_when_the_thread_has_to_look(registering: Registering) -> None:
    await registering.until_the_loop_commits()
    new, ready = [NewTask(a_task(id="before-0", timeout=61.0))], []
    with pytest.raises(Conflict):
        await registering.store.write(
            lambda tables: tables.add(new, lambda _uid: None), registers=new, meanwhile=lambda: ready.append(1)
        )
    await asyncio.sleep(0)
    assert ready == [1]


async def told(registering: Registering, name: str, tell: Callable[[], None], timeout: float = 60.0) -> None:
    new = [NewTask(a_task(id=name, timeout=timeout))]
    await registering.store.write(
        lambda tables: tables.add(new, lambda _uid: None),
        lambda _result: registering.by.append(True),
        registers=new,
        meanwhile=lambda: tell,
    )
    await asyncio.sleep(0)


async def test_i1_who_registers_is_answered_as_soon_as_the_task_is_on_disk(registering: Registering) -> None:
    await registering.until_the_loop_commits()
    before, found = registering.stored(), []
    await told(registering, "d", lambda: found.append((registering.stored() - before, len(registering.by))))
    assert found == [(1, 0)], "once, on disk, and not settled yet"
    assert registering.by == [True]


@pytest.mark.parametrize(("name", "error"), [("before-0", Conflict), ("d", OutcomeUnknown)])
async def test_i10_nobody_is_told_of_what_is_refused_or_cannot_be_known(
    name: str, error: type[Exception], registering: Registering, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[str] = []
    await registering.until_the_loop_commits()
    if error is OutcomeUnknown:
        monkeypatch.setattr(registering.store, "_inode", 0)  # the file was replaced
    with pytest.raises(error):
        await told(registering, name, lambda: found.append(name), timeout=61.0)
    assert found == []


async def test_an_answer_that_cannot_be_given_changes_nothing(registering: Registering, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    await registering.until_the_loop_commits()
    await told(registering, "d", fail)
    assert registering.by == [True]
    assert not registering.store.busy
    assert "cannot answer a registration" in caplog.text
    await registering.one("e")
    assert registering.by == [True, True]


@pytest.mark.parametrize("error", [MemoryError(), sqlite3.OperationalError("the disk does not answer")])
async def test_i10_outcome_is_unknown_when_it_cannot_be_told_whether_the_flush_came_first(
    error: Exception, registering: Registering, monkeypatch: pytest.MonkeyPatch
) -> None:
    await registering.until_the_loop_commits()

    def fail(_parts: object) -> None:
        raise error

    if isinstance(error, sqlite3.OperationalError):
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR
    monkeypatch.setattr(registering.store.tables, "add_new", fail)
    with pytest.raises(OutcomeUnknown):
        await registering.one("d")


async def test_i10_outcome_is_unknown_when_the_store_cannot_be_read_again(
    registering: Registering, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise sqlite3.OperationalError("the disk does not answer")

    await registering.until_the_loop_commits()
    monkeypatch.setattr(registering.store.tables, "reread", fail)
    with closing(sqlite3.connect(registering.path, isolation_level=None)) as beside:
        beside.execute("BEGIN IMMEDIATE")
        with pytest.raises(OutcomeUnknown):
            await registering.one("d")


async def test_nothing_is_stored_when_getting_the_answer_ready_fails(registering: Registering) -> None:
    await registering.until_the_loop_commits()
    new = [NewTask(a_task(id="d"))]

    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await registering.store.write(lambda tables: tables.add(new, lambda _uid: None), registers=new, meanwhile=fail)
    await asyncio.sleep(0)
    assert not registering.store.busy
    await registering.one("e")
    assert registering.stored() == BEGINS_AFTER + 2
    assert registering.fatal == []


async def test_the_wal_does_not_grow_in_a_long_burst(
    io_loop: AsyncIOLoop, short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "CHECKPOINT", 20)
    monkeypatch.setattr(store_module, "LONGEST_WAL", 0)
    monkeypatch.setattr(burst_module, "MOST", 5)
    registering = Registering(short_path)
    await registering.store.open(0.0)
    for number in range(100):
        await registering.one(f"d-{number}")
    pages = Path(f"{registering.path}-wal").stat().st_size / wal.FRAME
    await registering.store.close()
    assert registering.by[BEGINS_AFTER:].count(False) == 16
    assert pages < 20 + 6 * 5 + 5


async def test_i10_outcome_is_unknown_when_the_commit_of_the_loop_fails(registering: Registering) -> None:
    await registering.until_the_loop_commits()
    registering.store.connection.close()
    with pytest.raises(OutcomeUnknown):
        await registering.one("d")
    await asyncio.sleep(0)
    with pytest.raises(Degraded):
        await registering.one("e")
    assert len(registering.fatal) == 1


async def test_i10_outcome_is_unknown_when_the_store_was_removed_in_a_burst(registering: Registering) -> None:
    await registering.until_the_loop_commits()
    registering.path.rename(registering.path.with_suffix(".away"))
    with pytest.raises(OutcomeUnknown):
        await registering.one("d")
    assert registering.by == []


@pytest.mark.parametrize(("point", "stored"), [("burst.before", 0), ("burst.after", 1)])
async def test_i1_what_the_loop_commits_is_on_disk_before_it_is_answered(
    point: str, stored: int, registering: Registering, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crash, "_hook", None)
    found: list[tuple[int, int]] = []
    await registering.until_the_loop_commits()
    before = registering.stored()
    crash.install(point, lambda: found.append((registering.stored() - before, len(registering.by))))
    await registering.one("d")
    assert found == [(stored, 0)]
    assert registering.by == [True]


async def test_a_full_disk_is_refused_in_a_burst_and_writing_goes_on_when_there_is_room(registering: Registering) -> None:
    async def many(count: int) -> None:
        for number in range(count):
            await registering.one(f"d-{number}")

    await registering.until_the_loop_commits()
    connection = registering.store.connection
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}").fetchall()
    with pytest.raises(StoreFull):
        await many(1000)
    connection.execute("PRAGMA max_page_count = 1000000").fetchall()
    await registering.one("after")
    assert registering.stored() == BEGINS_AFTER + 1 + len(registering.by)
    assert registering.fatal == []


async def test_the_thread_makes_the_reserve_of_a_full_disk_again(registering: Registering) -> None:
    await registering.until_the_loop_commits()
    registering.store._reserve.give_up()
    await registering.one("d")
    assert registering.by == [False]
    assert not registering.store.full


async def test_nothing_is_taken_in_a_burst_when_the_store_is_closed(short_path: Path) -> None:
    registering = Registering(short_path)
    await registering.store.open(0.0)
    await registering.until_the_loop_commits()
    await registering.store.close()
    with pytest.raises(Draining):
        await registering.one("d")


def test_a_burst_goes_on_for_some_time_only_and_while_commits_are_quick_and_alone() -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        burst = Burst(connection, 100, 1.0)
        for _ in range(BEGINS_AFTER):
            assert not burst.goes_on(1.0)
            burst.count(True, QUICK / 2, 1.0)
        assert burst.goes_on(1.0)
        assert burst.goes_on(1.0 + JUST_NOW / 2)
        for _ in range(MOST):
            burst.begin()
        assert not burst.goes_on(1.0), "the thread has to look after the WAL"
        burst.end()
        assert burst.goes_on(1.0)
        assert connection.execute("PRAGMA busy_timeout").fetchone() == (1000,)
        burst.count(False, QUICK / 2, 1.0)
        assert not burst.goes_on(1.0)


def test_a_burst_goes_on_after_what_polls_write_and_not_after_two_registrations_or_a_slow_commit() -> None:
    def goes_on_after(registering: int, operations: int, under_way: int, took: float) -> bool:
        with closing(sqlite3.connect(":memory:")) as connection:
            burst = Burst(connection, 100, 1.0)
            for _ in range(BEGINS_AFTER):
                burst.count(True, 0.0, 1.0)
            burst.count_group(registering, operations, under_way, took, 1.0)
            return burst.goes_on(1.0)

    quick, slow = 0.5, burst_module.JUST_NOW
    assert goes_on_after(0, 1, 1, quick)
    assert goes_on_after(1, 2, 2, quick)
    assert goes_on_after(1, 1, 1, quick)
    assert not goes_on_after(1, 1, 2, quick), "somebody else waits"
    assert not goes_on_after(2, 2, 2, quick)
    assert not goes_on_after(2, 3, 3, quick)
    assert not goes_on_after(0, 1, 1, slow)
    assert not goes_on_after(1, 2, 2, slow)
