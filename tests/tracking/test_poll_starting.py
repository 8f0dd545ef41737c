"""How work is started, ends at its deadline, and is cleaned up after its end, crashes included."""

import shutil
from pathlib import Path

import pytest
from msgspec.structs import replace

from task_daemon.clock import FakeClock
from task_daemon.core.errors import StartRefused, WorkGone
from task_daemon.core.model import Change, Report, State, Task, Verdict
from task_daemon.core.ports import Idle
from task_daemon.engine.memory import MemoryBeat
from task_daemon.tracking.poll import STARTS_PER_POLL
from tests.tracking.outside import GOING_ON, SILENT, SUCCEEDED, VANISHED, Make, Outside, by_id, fails_with, state

# ---- starting


async def test_i2_the_intent_is_on_disk_before_the_work_is_started(
    make: Make, outside: Outside, clock: FakeClock, short_path: Path
) -> None:
    """What is on disk at the moment of the start is copied and opened by another engine, as after a crash."""
    live, crashed = short_path / "live", short_path / "crashed"
    live.mkdir()
    seen: list[Task | None] = []

    def start(task: Task) -> Report:
        seen.append(world.engine.get(task.uid))
        shutil.copytree(live, crashed)
        return GOING_ON

    outside.prepare = lambda task: {"name": f"task-{task.uid}"}
    outside.start = start
    world = await make(live, z1=outside)
    task = await world.run()
    await world.beat()
    after = await make(crashed)

    stored = await after.manager.get(task.uid)
    handle = {"name": f"task-{task.uid}"}
    assert (stored.state, stored.launched, stored.tidy, stored.handle) == (State.QUEUED, True, False, handle)
    assert [(event.type, event.detail) for event in await after.events(task.uid)][1:] == [("task.launching", {"handle": handle})]
    assert [(known.launched, known.handle) for known in seen if known] == [(True, handle)]


async def test_i2_work_whose_start_a_crash_cut_short_is_adopted_and_started_once(make: Make, short_path: Path) -> None:
    live, crashed = short_path / "live", short_path / "crashed"
    live.mkdir()
    work: list[str] = []  # the outside, which does not notice the crash

    def start(task: Task) -> Report:
        adopted = task.uid in work
        if not adopted:
            work.append(task.uid)
            shutil.copytree(live, crashed)
        return Report(Verdict.GOING_ON, adopted=adopted)

    before, after = Outside(), Outside()
    before.start = after.start = start
    prepared: list[str] = []
    after.prepare = lambda task: prepared.append(task.uid)
    world = await make(live, z1=before)
    task = await world.run()
    await world.beat()
    again = await make(crashed, z1=after)
    await again.beat()

    assert work == [task.uid]
    assert (after.starts, prepared) == (["d"], [])
    adopted = await again.manager.get(task.uid)
    assert (adopted.state, adopted.adopted) == (State.RUNNING, True)
    assert (await again.events(task.uid))[-1].detail == {"adopted": True}


async def test_a_start_that_got_no_answer_is_made_again_and_intended_once(make: Make, outside: Outside) -> None:
    outside.start = fails_with(SILENT)
    world = await make(z1=outside)
    task = await world.run()
    await world.beat(2)
    outside.start = lambda _: GOING_ON
    await world.beat(3)

    assert await world.types(task.uid) == ["registered", "launching", "running"]
    assert outside.starts == ["d"] * 3


async def test_a_start_that_tells_nothing_is_looked_at_in_the_same_poll(make: Make, outside: Outside) -> None:
    outside.start = lambda _: None
    world = await make(z1=outside)
    task = await world.run()
    await world.beat()

    assert await state(world, task) is State.RUNNING
    assert outside.polls == [["d"]]


async def test_a_refused_start_fails_the_task_and_is_cleaned_up(make: Make, outside: Outside) -> None:
    outside.start = fails_with(StartRefused("no image of that name"))
    world = await make(z1=outside)
    task = await world.run()
    await world.beat()

    ended = await world.manager.get(task.uid)
    assert ended.error is not None
    assert (ended.state, ended.error.kind, ended.error.message) == (State.FAILED, "start-refused", "no image of that name")
    assert await world.types(task.uid) == ["registered", "launching", "failed", "tidied"]
    assert (outside.starts, outside.polls, outside.forgets) == (["d"], [], ["d"])


async def test_nothing_is_cleaned_up_when_the_start_was_refused_before_it_was_intended(make: Make, outside: Outside) -> None:
    outside.prepare = fails_with(StartRefused("no such path", kind="backend"))
    world = await make(z1=outside)
    task = await world.run()
    await world.beat(2)

    ended = await world.manager.get(task.uid)
    assert ended.error is not None
    assert (ended.error.kind, ended.tidy) == ("backend", True)
    assert await world.types(task.uid) == ["registered", "failed"]
    assert (outside.starts, outside.forgets) == ([], [])


async def test_work_that_was_started_before_and_is_gone_is_lost(make: Make, outside: Outside) -> None:
    outside.start = fails_with(WorkGone("the storage was restarted"))
    world = await make(z1=outside)
    task = await world.run()
    await world.beat()

    lost = await world.manager.get(task.uid)
    assert lost.error is not None
    assert (lost.state, lost.error.kind, lost.error.message) == (State.LOST, "lost", "the storage was restarted")
    assert outside.forgets == ["d"]


async def test_work_that_ends_in_its_start_is_cleaned_up_in_the_same_poll(make: Make, outside: Outside) -> None:
    outside.start = lambda _: SUCCEEDED
    world = await make(z1=outside)
    task = await world.run()
    await world.beat()

    assert await world.types(task.uid) == ["registered", "launching", "succeeded", "tidied"]
    assert (outside.polls, outside.forgets) == ([], ["d"])


@pytest.mark.parametrize("step", ["prepare", "start"])
async def test_a_surprise_in_a_start_is_tried_again_and_stops_no_other(make: Make, outside: Outside, step: str) -> None:
    setattr(outside, step, by_id({"bad": ValueError("a slip")}, None if step == "prepare" else GOING_ON))
    outside.report = by_id({"bad": VANISHED})
    world = await make(z1=outside)
    bad, good = await world.run("bad"), await world.run("good")
    tracked = await world.register("tracked")
    await world.beat(5)
    assert [await state(world, task) for task in (bad, good, tracked)] == [State.QUEUED, State.RUNNING, State.RUNNING]
    assert world.errors()[-1] == f"cannot start task {bad.uid}: ValueError('a slip')"
    assert world.zone()["state"] == "ok"
    setattr(outside, step, lambda _: None)
    outside.report = lambda _: GOING_ON
    await world.beat()

    assert await state(world, bad) is State.RUNNING


async def test_a_crowd_of_new_tasks_is_started_some_at_a_time_without_waiting(make: Make, outside: Outside) -> None:
    world = await make(z1=outside)
    await world.register("running")
    for number in range(2 * STARTS_PER_POLL + 1):
        await world.run(f"d{number:02}")
    await world.beat()

    assert outside.starts == [f"d{number:02}" for number in range(2 * STARTS_PER_POLL + 1)]
    assert [len(asked) for asked in outside.polls] == [1 + STARTS_PER_POLL, 1 + 2 * STARTS_PER_POLL, 2 + 2 * STARTS_PER_POLL]


async def test_many_that_cannot_be_started_keep_nobody_waiting_and_the_zone_is_not_hurried(make: Make, outside: Outside) -> None:
    bad = [f"bad{number:02}" for number in range(40)]
    outside.start = by_id({name: ValueError("a slip") for name in bad})
    world = await make(z1=outside)
    for name in bad:
        await world.run(name)
    good = await world.run("good")
    await world.beat()
    assert await state(world, good) is State.RUNNING
    assert len(outside.starts) == 3 * STARTS_PER_POLL, "41 were due, and 7 of the bad ones filled the third poll"
    await world.beat(3)

    assert len(outside.starts) == 6 * STARTS_PER_POLL
    assert set(bad) <= set(outside.starts[3 * STARTS_PER_POLL :]), "each has its turn"


async def test_an_end_that_was_not_taken_is_not_cleaned_up(make: Make, outside: Outside) -> None:
    """Somebody cancels while the start is out: what is on disk is `cancelling`, so the work may not be touched as if ended."""

    def start(task: Task) -> Report:
        now = world.engine.get(task.uid)
        assert now is not None
        assert world.engine.report(None, [Change(now, replace(now, task_seq=now.task_seq + 1), save=True)]) == [True]
        raise StartRefused("no")

    outside.start = start
    world = await make(z1=outside)
    task = await world.run()
    await world.beat()

    assert await state(world, task) is State.QUEUED
    assert outside.forgets == []


# ---- the deadline


async def test_f11_a_deadline_is_wall_time_and_the_work_is_stopped(make: Make, outside: Outside, clock: FakeClock) -> None:
    world = await make(z1=outside)
    tracked, run = await world.register("t", timeout=100.0), await world.run("r", timeout=100.0)
    await world.beat()
    clock.jump(200)
    await world.beat()
    await world.pass_(1.0)

    for task in (tracked, run):
        ended = await world.manager.get(task.uid)
        assert ended.error is not None
        assert (ended.state, ended.error.kind) == (State.FAILED, "timeout")
    assert outside.forgets == ["r"]


async def test_f11_a_deadline_passes_while_nothing_runs(make: Make, clock: FakeClock, short_path: Path) -> None:
    before, after = Outside(), Outside()
    world = await make(short_path, z1=before)
    task = await world.run(timeout=100.0)
    early = await world.run("early", timeout=1000.0)
    await world.beat()
    await world.engine.close()
    clock.advance(100)
    again = await make(short_path, z1=after)
    await again.beat()

    assert [await state(again, one) for one in (task, early)] == [State.FAILED, State.RUNNING]
    assert after.forgets == ["d"]
    assert (await again.types(task.uid)).count("failed") == 1


async def test_a_task_of_a_zone_that_is_not_configured_any_more_waits_and_fails_at_its_deadline(
    make: Make, outside: Outside, clock: FakeClock, short_path: Path
) -> None:
    world = await make(short_path, z1=outside)
    task = await world.register(timeout=100.0)
    await world.beat()
    await world.engine.close()
    again = await make(short_path, z2=Outside())
    await again.beat()
    assert await state(again, task) is State.RUNNING
    clock.advance(100)
    await again.beat()

    ended = await again.manager.get(task.uid)
    assert ended.error is not None
    assert (ended.state, ended.error.kind) == (State.FAILED, "zone-removed")
    assert isinstance(again.poller(MemoryBeat("z1", 1)), Idle)


async def test_a_task_that_ended_meanwhile_does_not_expire(make: Make, outside: Outside, clock: FakeClock) -> None:
    outside.report = lambda _: SUCCEEDED
    world = await make(z1=outside)
    task = await world.register(timeout=100.0)
    await world.beat()
    clock.advance(200)
    world.poller.expire([task])

    assert await world.types(task.uid) == ["registered", "succeeded"]


# ---- cleaning up


async def test_cleaning_up_waits_for_the_end_on_disk(make: Make, outside: Outside, short_path: Path) -> None:
    live, crashed = short_path / "live", short_path / "crashed"
    live.mkdir()
    outside.forget = lambda task: shutil.copytree(live, crashed)  # type: ignore[assignment]
    world = await make(live, z1=outside)
    task = await world.run()
    await world.beat()
    outside.report = lambda _: SUCCEEDED
    await world.beat()
    after = await make(crashed)

    assert await after.types(task.uid) == ["registered", "launching", "running", "succeeded"]
    assert await world.types(task.uid) == ["registered", "launching", "running", "succeeded", "tidied"]


async def test_cleaning_up_is_repeated_until_it_works_across_restarts(make: Make, short_path: Path) -> None:
    before, after = Outside(), Outside()
    before.forget = fails_with(OSError("busy"))
    before.start = lambda _: SUCCEEDED
    world = await make(short_path, z1=before)
    task = await world.run()
    await world.beat(2)
    assert (await world.manager.get(task.uid)).tidy is False
    assert before.forgets == ["d", "d"]
    assert f"cannot clean up after task {task.uid}: OSError('busy')" in world.errors()
    await world.engine.close()
    again = await make(short_path, z1=after)
    await again.beat(3)

    assert after.forgets == ["d"]
    assert (await again.types(task.uid))[-1] == "tidied"


async def test_one_that_cannot_be_cleaned_up_keeps_no_other_from_it(make: Make, outside: Outside) -> None:
    outside.forget = by_id({"bad": OSError("busy")}, None)
    outside.start = lambda _: SUCCEEDED
    world = await make(z1=outside)
    bad, good = await world.run("bad"), await world.run("good")
    await world.beat()

    assert [(await world.manager.get(task.uid)).tidy for task in (bad, good)] == [False, True]
