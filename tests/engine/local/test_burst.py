"""Which registrations the event loop commits itself, and that nothing else changes by it."""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tornado.platform.asyncio import AsyncIOLoop

from task_daemon.core import crash
from task_daemon.core.errors import Conflict, Degraded, Draining, OutcomeUnknown, StoreFull
from task_daemon.core.ports import NewTask
from task_daemon.engine.local import burst as burst_module
from task_daemon.engine.local import store as store_module
from task_daemon.engine.local import wal
from task_daemon.engine.local.burst import ALONE_AFTER, BEGINS_AFTER, JUST_NOW, LOOK_AGAIN, MOST, PAGES, PAUSE, QUICK, Burst
from task_daemon.engine.local.store import MOST_HERE
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
        await self.some(name, timeout=timeout)
        await asyncio.sleep(0)

    async def some(self, *names: str, timeout: float = 60.0) -> None:
        new = [NewTask(a_task(id=name, timeout=timeout)) for name in names]
        await self.store.write(
            lambda tables: tables.add(new, lambda _uid: None),
            lambda _result: self.by.append(threading.current_thread() is threading.main_thread()),
            new=True,
            registers=new,
        )

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


@pytest.mark.parametrize("count", [2, 8, 9, MOST_HERE])
async def test_the_loop_commits_together_what_comes_in_one_turn(count: int, registering: Registering) -> None:
    await registering.until_the_loop_commits()
    before = registering.store.commits
    await asyncio.gather(*(registering.one(f"d-{number}") for number in range(count)))
    assert registering.by == [True] * count
    assert registering.store.commits == before + 1
    assert registering.stored() == BEGINS_AFTER + 1 + count
    assert await registering.sequences() == list(range(1, BEGINS_AFTER + 2 + count))
    assert not registering.store.busy


async def test_i5_a_crowd_is_left_to_the_thread(registering: Registering) -> None:
    await registering.until_the_loop_commits()
    before = registering.store.commits
    await asyncio.gather(*(registering.one(f"d-{number}") for number in range(MOST_HERE + 1)))
    assert registering.by == [False] * (MOST_HERE + 1)
    assert registering.store.commits == before + 1


async def test_i5_a_batch_is_left_to_the_thread(registering: Registering) -> None:
    await registering.until_the_loop_commits()
    await registering.some("d", "e")
    await asyncio.gather(registering.some("f", "g"), registering.one("h"))
    assert registering.by == [False] * 3


async def test_one_that_is_known_does_not_keep_others_of_its_turn_from_being_stored(registering: Registering) -> None:
    await registering.until_the_loop_commits()
    came = [registering.one("d"), registering.one("before-0", timeout=61.0), registering.one("e")]
    found = await asyncio.gather(*came, return_exceptions=True)
    assert [type(each) for each in found] == [type(None), Conflict, type(None)]
    assert registering.by == [False, False]
    assert await registering.sequences() == list(range(1, BEGINS_AFTER + 4))


async def test_who_is_alone_does_not_wait_for_the_end_of_a_turn(registering: Registering) -> None:
    await registering.until_the_loop_commits()
    at_once = []
    for number in range(3 * LOOK_AGAIN):
        new = [NewTask(a_task(id=f"d-{number}"))]
        answer = asyncio.ensure_future(registering.store.write(lambda _tables: None, registers=new))
        at_once.append(answer.done())
        await answer
    so_far = BEGINS_AFTER + 1
    expected = [number >= ALONE_AFTER and number % LOOK_AGAIN > 1 for number in range(so_far, so_far + 3 * LOOK_AGAIN)]
    assert at_once == expected


async def test_registrations_are_one_statement_of_the_thread_unless_there_is_something_to_look_up(
    registering: Registering,
) -> None:
    statements: list[str] = []
    registering.store.connection.set_trace_callback(statements.append)
    await asyncio.gather(*(registering.one(f"d-{number}") for number in range(8)))
    assert [each.split()[0] for each in statements] == ["INSERT"]
    with pytest.raises(Conflict):
        await registering.one("d-0", timeout=61.0)
    assert "BEGIN" in {each.split()[0] for each in statements}
    assert registering.by == [False] * 8


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


async def test_nothing_overtakes_what_waits_for_the_thread(registering: Registering, monkeypatch: pytest.MonkeyPatch) -> None:
    class Queue:
        def __init__(self, real: Any) -> None:
            self.get, self.put = real.get, held.append

    await registering.until_the_loop_commits()
    held, store = list[Any](), registering.store
    with monkeypatch.context() as patched:
        patched.setattr(store, "_operations", Queue(store._operations))
        first = store.write(lambda tables: tables.seq)
        await turns_until(lambda: len(held) == 1)
        second = asyncio.ensure_future(registering.one("d"))
        await turns_until(lambda: len(held) == 2)
    for group in held:
        store._operations.put(group)
    await second
    assert await first == BEGINS_AFTER + 1
    assert registering.by == [False]


async def test_i5_a_locked_store_does_not_hold_the_loop_up(registering: Registering) -> None:
    await registering.until_the_loop_commits()
    assert registering.store.connection.execute("PRAGMA busy_timeout").fetchone() == (0,)
    with closing(sqlite3.connect(registering.path, isolation_level=None)) as beside:
        beside.execute("BEGIN IMMEDIATE")
        waiting = asyncio.ensure_future(registering.one("d"))
        await turns_until(lambda: not registering.store._arrived and registering.store.busy)
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


async def test_i1_all_of_one_turn_are_answered_as_soon_as_they_are_on_disk(registering: Registering) -> None:
    await registering.until_the_loop_commits()
    before, found = registering.stored(), []

    def tell() -> None:
        found.append((registering.stored() - before, len(registering.by)))

    await asyncio.gather(*(told(registering, f"d-{number}", tell) for number in range(3)))
    assert found == [(3, 0)] * 3, "each once, all on disk, and none settled yet"
    assert registering.by == [True] * 3


async def test_i10_outcome_is_unknown_for_all_of_one_turn(registering: Registering, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[str] = []
    await registering.until_the_loop_commits()
    monkeypatch.setattr(registering.store, "_inode", 0)  # the file was replaced
    came = [told(registering, f"d-{number}", lambda: found.append("told")) for number in range(3)]
    assert [type(each) for each in await asyncio.gather(*came, return_exceptions=True)] == [OutcomeUnknown] * 3
    assert not found
    assert not registering.by


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


def sqlite_error(code: int) -> sqlite3.Error:
    error = sqlite3.OperationalError("the disk does not answer")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize("error", [MemoryError(), sqlite_error(sqlite3.SQLITE_IOERR)])
async def test_i10_outcome_is_unknown_when_it_cannot_be_told_whether_the_flush_came_first(
    error: Exception, registering: Registering, monkeypatch: pytest.MonkeyPatch
) -> None:
    await registering.until_the_loop_commits()

    def fail(_parts: object) -> None:
        raise error

    monkeypatch.setattr(registering.store.tables, "add_at_once", fail)
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


async def test_one_that_cannot_be_stored_does_not_keep_others_of_its_turn_from_it(
    registering: Registering, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = registering.store.tables
    insert, threads = tables._insert, []

    def fail_for_d1(new: Sequence[NewTask]) -> Any:
        threads.append(threading.current_thread() is threading.main_thread())
        if any(item.task.id == "d-1" for item in new):
            raise ZeroDivisionError
        return insert(new)

    await registering.until_the_loop_commits()
    monkeypatch.setattr(tables, "_insert", fail_for_d1)
    found = await asyncio.gather(*(registering.one(f"d-{number}") for number in range(3)), return_exceptions=True)
    assert [type(each) for each in found] == [type(None), ZeroDivisionError, type(None)]
    assert threads == [True, False, False, False, False], "the loop does not make a commit for each of them"
    assert await registering.sequences() == list(range(1, BEGINS_AFTER + 4))
    assert registering.fatal == []


async def test_i10_nobody_is_left_waiting_when_something_unforeseen_goes_wrong(
    registering: Registering, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_started: float, _operations: int) -> None:
        raise MemoryError

    await registering.until_the_loop_commits()
    monkeypatch.setattr(registering.store, "_count", fail)
    found = await asyncio.gather(*(registering.one(f"d-{number}") for number in range(3)), return_exceptions=True)
    assert [type(each) for each in found] == [OutcomeUnknown] * 3
    await turns_until(lambda: len(registering.fatal) == 1)
    assert not registering.store.busy


@pytest.mark.parametrize(
    ("error", "expected", "fatal"),
    [
        (MemoryError(), OutcomeUnknown, 1),
        (sqlite_error(sqlite3.SQLITE_IOERR), OutcomeUnknown, 1),
        (sqlite_error(sqlite3.SQLITE_FULL), StoreFull, 0),
        (sqlite_error(sqlite3.SQLITE_BUSY), Degraded, 0),
        (ZeroDivisionError(), ZeroDivisionError, 0),
    ],
)
async def test_i10_what_becomes_of_registrations_that_the_thread_cannot_store_at_once(
    error: Exception, expected: type[Exception], fatal: int, registering: Registering, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_new: object) -> None:
        raise error

    monkeypatch.setattr(registering.store.tables, "_insert", fail)
    found = await asyncio.gather(*(registering.one(f"d-{number}") for number in range(9)), return_exceptions=True)
    assert [type(each) for each in found] == [expected] * 9
    await asyncio.sleep(0)
    assert len(registering.fatal) == fatal
    assert not registering.store.connection.in_transaction
    monkeypatch.undo()
    if not fatal:
        await registering.one("after")
        assert registering.stored() == 1


async def test_nothing_is_written_for_several_of_which_one_is_known(registering: Registering) -> None:
    """Nine are two statements, of which the second fails."""
    await registering.one("d-8")
    tables, connection = registering.store.tables, registering.store.connection
    changed = Path(f"{registering.path}-wal").stat().st_size
    new = [NewTask(a_task(id=f"d-{number}")) for number in range(9)]
    assert tables.add_at_once(new) is None
    assert not connection.in_transaction
    assert Path(f"{registering.path}-wal").stat().st_size == changed


async def test_the_wal_does_not_grow_in_a_long_burst(
    io_loop: AsyncIOLoop, short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "CHECKPOINT", 20)
    monkeypatch.setattr(store_module, "LONGEST_WAL", 0)
    monkeypatch.setattr(burst_module, "MOST", 5 * 2 * PAGES)
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


def test_a_burst_goes_on_for_some_time_only_and_while_commits_are_quick() -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        burst = Burst(connection, 100, 1.0)
        for _ in range(BEGINS_AFTER):
            assert not burst.goes_on(1.0)
            burst.count(True, QUICK / 2, 1.0)
        assert burst.goes_on(1.0)
        assert burst.goes_on(1.0 + JUST_NOW / 2)
        burst.count(False, QUICK / 2, 1.0)
        assert not burst.goes_on(1.0), "the thread had to look"


@pytest.mark.parametrize("registrations", [1, 8, 64])
def test_the_thread_looks_after_the_wal_when_the_loop_has_written_some_pages(registrations: int) -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        burst = Burst(connection, 100, 1.0)
        for _ in range(BEGINS_AFTER):
            burst.count(True, 0.0, 1.0)
        commits = 0
        while burst.goes_on(1.0):
            burst.begin(registrations)
            commits += 1
        assert MOST <= commits * PAGES * (1 + registrations) < MOST + PAGES * (1 + registrations)
        assert connection.execute("PRAGMA busy_timeout").fetchone() == (0,)
        burst.end()
        assert burst.goes_on(1.0)
        assert connection.execute("PRAGMA busy_timeout").fetchone() == (1000,)


def test_whoever_was_alone_for_a_while_is_taken_to_be_alone_and_now_and_then_it_is_looked_again() -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        burst = Burst(connection, 100, 1.0)
        found = []
        for _ in range(2 * LOOK_AGAIN):
            found.append(burst.is_alone)
            burst.came(1)
        assert found == [number >= ALONE_AFTER and number % LOOK_AGAIN > 1 for number in range(2 * LOOK_AGAIN)]
        burst.came(2)
        assert not burst.is_alone


def test_a_burst_goes_on_after_what_polls_write_and_not_after_a_slow_commit() -> None:
    def goes_on_after(registering: int, operations: int, took: float) -> bool:
        with closing(sqlite3.connect(":memory:")) as connection:
            burst = Burst(connection, 100, 1.0)
            for _ in range(BEGINS_AFTER):
                burst.count(True, 0.0, 1.0)
            burst.count_group(registering, operations, took, 1.0)
            return burst.goes_on(1.0)

    quick, slow, hung = 0.5, 61.0, burst_module.JUST_NOW
    assert goes_on_after(0, 1, quick)
    assert goes_on_after(1, 2, quick)
    assert goes_on_after(8, 8, quick)
    assert not goes_on_after(1, 1, slow)
    assert not goes_on_after(0, 1, hung)
    assert not goes_on_after(1, 2, hung)


def test_who_computes_gives_way_while_registrations_come_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setattr(burst_module, "JUST_NOW", JUST_NOW)
    with closing(sqlite3.connect(":memory:")) as connection:
        burst = Burst(connection, 100, 1.0)
        burst.count(True, 1.0, 100.0)
        assert burst.give_way(100.0 + JUST_NOW * 2) == 0.0
        assert burst.give_way(100.0 + JUST_NOW / 2) == PAUSE
        burst.count_group(0, 1, JUST_NOW, 200.0)
        assert burst.give_way(200.0) == 0.0, "what polls write is none"
    assert slept == [PAUSE]
