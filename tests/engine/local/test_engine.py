"""What only the embedded engine can show: threads that hang, unclean stops, failing disks, size in memory."""

import asyncio
import gc
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace
from tornado.platform.asyncio import AsyncIOLoop

from task_daemon.clock import FakeClock
from task_daemon.core.errors import OutcomeUnknown
from task_daemon.core.model import Query, State
from task_daemon.core.ports import Again, Beat, NewTask
from task_daemon.engine.local.engine import LocalEngine
from task_daemon.engine.local.keeper import Keeper
from tests.contract.engine_case import Case, a_delivery, a_task, finished, progress, running
from tests.waiting import PATIENCE, eventually

Eventually = Callable[..., None]
HUNG = ("h0", "h1", "h2", "h3")


def engine_of(case: Case) -> LocalEngine:
    assert isinstance(case.engine, LocalEngine)
    return case.engine


@pytest.fixture
def case(io_loop: AsyncIOLoop, short_path: Path, clock: FakeClock) -> Iterator[Case]:
    case = Case("local", short_path, clock)
    case.intervals |= dict.fromkeys(HUNG, 10.0)
    yield case
    case.hold.set()
    if engine_of(case)._opened:
        io_loop.run_sync(case.engine.close)


def crash(case: Case, eventually: Eventually) -> None:
    """Leave the engine as a SIGKILL would: nothing is checkpointed, nothing is marked as clean."""
    engine = engine_of(case)
    for task in (engine._timing, engine._loading):
        assert task is not None
        task.cancel()
    engine._rounds.workers.close()
    engine._rounds._expirer.close(0)
    engine.store._closed = True
    engine.store._operations.put(None)
    engine.store._writer.join(10)
    engine.store._reader.close(10)
    engine.store._reading.close()
    engine.store.connection.close()
    case.engine = case._make()


async def hang(case: Case, *zones: str) -> None:
    """Returns when a poll of each zone hangs: one that was given up before it began would not."""
    hanging: set[str] = set()

    def act(beat: Beat) -> Again:
        hanging.add(beat.zone)
        case.hold.wait(60)
        return Again()

    case.acts.update(dict.fromkeys(zones, act))
    case.clock.advance(10)
    await case.engine.idle(besides=zones)
    await asyncio.to_thread(eventually, "the polls hang", lambda: hanging == set(zones))


async def test_f6_i6_other_zones_are_polled_and_everything_expires_when_four_zones_hang(
    case: Case, eventually: Eventually
) -> None:
    await case.open()
    await case.register(*(a_task(id=zone, zone=zone, timeout=100.0) for zone in HUNG))
    await hang(case, *HUNG)
    assert len(engine_of(case).status()["workers"]["busy"]) == 4
    case.polls.clear()
    await case.advance(60, besides=HUNG)
    assert sorted(stuck["zone"] for stuck in case.engine.status()["stuck"]) == list(HUNG)
    assert {facts["state"] for zone, facts in case.engine.status()["zones"].items() if zone in HUNG} == {"stuck"}
    assert len(case.polled("z1")) == 1
    await case.advance(40)
    assert sorted(case.expired) == sorted(HUNG)
    assert all(case.polled(zone) == [] for zone in HUNG)
    case.acts.clear()
    case.hold.set()
    await asyncio.to_thread(eventually, "the stuck have returned", lambda: not case.engine.status()["stuck"])
    await case.advance(10)
    assert all(case.polled(zone) for zone in HUNG)


async def test_f6_i6_hung_poll_writes_nothing_when_it_comes_back(case: Case, eventually: Eventually) -> None:
    await case.open()
    (task,) = await case.register(a_task(zone="h0"))
    late: list[list[bool]] = []
    entered = threading.Event()

    def act(beat: Beat) -> Again:
        entered.set()
        if not case.hold.wait(60) or late:
            return Again()
        late.append(case.engine.report(beat, [running(task, case.clock.now()), progress(task)]))
        return Again()

    case.acts["h0"] = act
    case.clock.advance(10)
    await case.engine.idle(besides=["h0"])
    assert await asyncio.to_thread(entered.wait, PATIENCE), "one that is given up before it began would never come back"
    await case.advance(60)
    case.hold.set()
    await asyncio.to_thread(eventually, "it came back", lambda: late)
    assert late == [[False, False]]
    assert case.engine.get(task.uid) == task


async def test_hung_poll_is_not_waited_for_when_the_engine_closes(case: Case) -> None:
    await case.open()
    (task,) = await case.register(a_task(zone="h0"))
    late: list[list[bool]] = []
    entered, came_back = threading.Event(), threading.Event()

    def act(beat: Beat) -> Again:
        entered.set()
        case.hold.wait(60)
        late.append(case.engine.report(beat, [running(task, case.clock.now())]))
        late.append(case.engine.report(None, [running(task, case.clock.now())]))
        came_back.set()
        return Again()

    case.acts["h0"] = act
    case.clock.advance(10)
    await case.engine.idle(besides=["h0"])
    assert await asyncio.to_thread(entered.wait, PATIENCE)
    await asyncio.wait_for(case.engine.close(), 30)  # the hung one would take 60
    case.hold.set()
    assert await asyncio.to_thread(came_back.wait, PATIENCE)
    assert late == [[False], [False]]


async def test_f2_i1_everything_answered_is_there_when_the_process_was_killed(case: Case, eventually: Eventually) -> None:
    case.answers = lambda row: case.down(row, 1000.0)
    await case.open()
    live, ended = await case.register(a_task(id="live"), a_task(id="ended"))
    await case.engine.change([running(live, case.clock.now())])
    await case.end(ended, a_delivery(ended))
    crash(case, eventually)
    await case.open()
    back = case.engine.get(live.uid)
    assert back is not None
    assert back.state is State.RUNNING
    assert [event.seq for event in await case.engine.events(0, 10)] == [1, 2, 3, 4]
    case.answers = case.accepted
    await case.advance(1000)
    assert len(case.sent) == 2


async def test_revision_is_above_everything_shown_when_the_stops_were_unclean(case: Case, eventually: Eventually) -> None:
    await case.open()
    (task,) = await case.register(a_task())
    shown = 0
    for _ in range(3):
        latest = case.engine.get(task.uid)
        assert latest is not None
        assert latest.revision > shown
        await case.engine.change([progress(latest, misses=1)])
        shown = latest.revision + 1
        crash(case, eventually)
        await case.open()
    await case.reopen()
    clean = case.engine.get(task.uid)
    await case.reopen()
    assert clean == case.engine.get(task.uid)


async def test_engine_is_not_idle_while_the_revisions_that_were_skipped_are_being_saved(
    case: Case, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then memory is ahead of the disk, and nothing is dirty any more."""
    await case.open()
    await case.register(a_task())
    crash(case, eventually)
    asked, go_on, save = asyncio.Event(), asyncio.Event(), Keeper.save

    async def slow(keeper: Keeper, chunk: int) -> None:
        asked.set()
        await go_on.wait()
        await save(keeper, chunk)

    monkeypatch.setattr(Keeper, "save", slow)
    await case.engine.open(case.intervals, case.handlers)
    await asked.wait()
    idle = asyncio.ensure_future(case.engine.idle())
    await asyncio.wait({idle}, timeout=0.3)
    assert not idle.done()
    go_on.set()
    await idle


async def test_progress_is_on_disk_after_a_minute_when_nothing_else_happened(case: Case, eventually: Eventually) -> None:
    await case.open()
    (task,) = await case.register(a_task())
    await case.engine.change([progress(task, last_progress_at=7.0)])
    assert case.engine.status()["dirty"] == 1
    await case.advance(60)
    assert case.engine.status()["dirty"] == 0
    crash(case, eventually)
    await case.open()
    back = case.engine.get(task.uid)
    assert back is not None
    assert back.last_progress_at == 7.0


async def test_misses_are_counted_anew_when_the_engine_was_killed_after_the_work_was_seen(
    case: Case, eventually: Eventually
) -> None:
    """That it was seen was only in memory; one more miss must not make it the third in a row."""
    await case.open()
    (task,) = await case.register(a_task())
    await case.engine.change([progress(task, misses=2)])
    await case.engine.checkpoint()
    await case.engine.change([progress(task, misses=0)])
    crash(case, eventually)
    await case.open()
    back = case.engine.get(task.uid)
    assert back is not None
    assert back.misses == 0


async def test_i11_everything_is_on_disk_when_many_are_dirty_and_the_engine_closes(case: Case) -> None:
    await case.open()
    tasks = await case.register(*(a_task(id=f"d{n}") for n in range(3000)))
    await case.engine.change([progress(task, misses=2) for task in tasks])
    assert case.engine.status()["dirty"] == 3000
    await case.reopen()
    assert all(task.misses == 2 for task in (await case.engine.find(Query(limit=500))).tasks)
    assert case.engine.status()["live"] == 3000


async def test_tasks_that_change_while_the_others_are_loaded_keep_their_newest_version(case: Case) -> None:
    await case.open()
    tasks = await case.register(*(a_task(id=f"d{n:05}") for n in range(5000)))
    await case.engine.close()
    case.engine = case._make()
    await case.engine.open(case.intervals, case.handlers)
    assert case.engine.status()["loading"]
    last, other = tasks[-1], tasks[-2]
    assert await case.engine.change([finished(last, case.clock.now()), running(other, case.clock.now())]) == [True, True]
    (replayed,) = await case.engine.add([NewTask(a_task(id="d04000"))])
    assert replayed.replayed
    await case.engine.idle()
    assert case.engine.get(last.uid) is None
    assert case.engine.tally() == {("z1", "backup", "queued"): 4998, ("z1", "backup", "running"): 1}


async def test_stale_reading_does_not_bring_an_ended_task_back_when_it_is_loaded(case: Case) -> None:
    await case.open()
    (task,) = await case.register(a_task())
    engine = engine_of(case)
    engine._ledger.touched = set()  # as while loading
    read = await engine.store.read(lambda look: look.live(("", 0), 10))
    await engine.change([finished(task, case.clock.now())])
    engine._keeper._take_in(read[0])
    engine._ledger.touched = None
    assert case.engine.get(task.uid) is None
    assert case.engine.tally() == {}


async def test_i10_engine_says_so_when_a_commit_fails(case: Case) -> None:
    await case.open()
    engine_of(case).store.connection.close()
    with pytest.raises(OutcomeUnknown):
        await case.engine.add([NewTask(a_task())])
    await case.engine.idle()
    assert len(case.fatal) == 1


FULL = """
import asyncio, resource, signal, sys
from pathlib import Path
from task_daemon.clock import FakeClock
from task_daemon.core.errors import OutcomeUnknown
from task_daemon.core.ports import NewTask
from tests.contract.engine_case import Case
from tests.making import a_task

async def main():
    case = Case("local", Path(sys.argv[1]), FakeClock())
    await case.open()
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
    answered = 0
    try:
        for n in range(1000):
            await case.engine.add([NewTask(a_task(id=f"d{n}"))])
            answered += 1
    except OutcomeUnknown:
        await asyncio.sleep(0)
        print(answered, len(case.fatal), flush=True)

asyncio.run(main())
"""


async def test_i10_answered_tasks_are_there_when_the_disk_failed_in_between(case: Case) -> None:
    def run() -> "subprocess.CompletedProcess[str]":
        return subprocess.run([sys.executable, "-c", FULL, case.path], capture_output=True, text=True, timeout=60, check=False)

    ended = await asyncio.to_thread(run)
    answered, fatal = map(int, ended.stdout.split())
    assert answered > 10
    assert fatal == 1
    await case.open()
    assert case.engine.status()["live"] >= answered


async def test_i12_live_task_costs_at_most_600_bytes(case: Case) -> None:
    await case.open()
    count = 20_000
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for start in range(0, count, 1000):
            await case.engine.add([NewTask(a_task(id=f"disk-{n:08}")) for n in range(start, start + 1000)])
        await case.engine.idle()
        case.told.clear()
        case.polls.clear()
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (after - before) / count <= 600


async def test_deliveries_of_one_commit_are_sent_without_waiting_for_the_clock(case: Case) -> None:
    await case.open()
    tasks = await case.register(*(a_task(id=f"d{n}") for n in range(500)))
    await case.engine.change(
        [finished(task, case.clock.now(), a_delivery(task, target=f"t{n % 9}")) for n, task in enumerate(tasks)]
    )
    await case.engine.idle()
    assert len(case.sent) == 500
    assert (await case.engine.callback_counts([tasks[0].uid]))[tasks[0].uid] == {"pending": 0, "delivered": 1, "dead": 0}


async def test_change_with_a_stored_fault_is_told_and_spoils_nothing(case: Case) -> None:
    await case.open()
    one, other = await case.register(a_task(id="a"), a_task(id="b"))
    broken = replace(finished(one, case.clock.now(), a_delivery(one), a_delivery(one)))
    with pytest.raises(Exception, match="UNIQUE"):
        await case.engine.change([broken])
    assert case.engine.get(one.uid) == one
    await case.end(other)
    assert [event.seq for event in await case.engine.events(0, 10)] == [1, 2, 3]
