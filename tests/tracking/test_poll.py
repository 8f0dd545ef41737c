"""One poll of one zone: what is looked at, cancelled and written down, and whom a bad backend harms."""

import logging
import threading
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from task_daemon.clock import FakeClock
from task_daemon.core.errors import BackendError
from task_daemon.core.model import CallbackTarget, Change, Draft, Progress, Report, State, Task, Verdict
from task_daemon.engine.memory import MemoryBeat
from task_daemon.tracking.admit import Registration
from task_daemon.tracking.poll import ASKED_ALONE, AT_ONCE, GIVEN_UP_AFTER
from tests.making import members
from tests.tracking.outside import (
    GOING_ON,
    HOOK,
    OWNER,
    SILENT,
    SUCCEEDED,
    VANISHED,
    Make,
    Outside,
    World,
    by_id,
    fails_with,
    state,
)
from tests.waiting import eventually

# ---- tracked work


async def test_a_tracked_task_runs_when_it_is_seen_and_ends_when_the_backend_says_so(make: Make, outside: Outside) -> None:
    world = await make(z1=outside)
    task = await world.register()
    await world.beat()
    assert await state(world, task) is State.RUNNING
    outside.report = lambda _: SUCCEEDED
    await world.beat()

    assert await world.types(task.uid) == ["registered", "running", "succeeded"]
    assert (outside.starts, outside.cancels, outside.forgets) == ([], [], [])


async def test_a_tracked_task_stays_queued_while_the_backend_does_not_know_it(make: Make, outside: Outside) -> None:
    outside.report = lambda _: VANISHED
    world = await make(z1=outside)
    task = await world.register()
    await world.beat(5)

    assert await state(world, task) is State.QUEUED


async def test_work_that_was_seen_is_lost_after_three_answers_without_it(make: Make, outside: Outside) -> None:
    world = await make(z1=outside)
    task = await world.register()
    await world.beat()
    outside.report = lambda _: VANISHED
    await world.beat(2)
    assert await state(world, task) is State.RUNNING
    await world.beat()

    assert await state(world, task) is State.LOST


async def test_progress_stays_in_memory_and_leaves_no_event(make: Make, outside: Outside) -> None:
    world = await make(z1=outside)
    task = await world.register()
    await world.beat()
    outside.report = lambda _: Report(Verdict.GOING_ON, Progress(percent=40.0))
    await world.beat()

    seen = await world.manager.get(task.uid)
    assert seen.progress is not None
    assert seen.progress.percent == 40.0
    assert await world.types(task.uid) == ["registered", "running"]


async def test_a_task_that_is_missing_in_the_answer_is_left_as_it_is(make: Make, outside: Outside) -> None:
    world = await make(z1=outside)
    task = await world.register()
    await world.beat()
    outside.answer = lambda tasks: {}
    await world.beat(5)

    assert await state(world, task) is State.RUNNING


async def test_the_size_of_a_result_is_told_once(make: Make, outside: Outside) -> None:
    outside.report = lambda _: Report(Verdict.GOING_ON, size=7)
    world = await make(z1=outside)
    task = await world.register(callback=CallbackTarget(url=HOOK, events=("size",)))
    await world.beat(3)

    assert await world.types(task.uid) == ["registered", "running", "size"]
    assert [row.type for row in await world.engine.deliveries(task.uid)] == ["task.size"]


async def test_an_end_is_told_with_the_commit_that_writes_it(make: Make, outside: Outside) -> None:
    outside.report = lambda _: SUCCEEDED
    world = await make(z1=outside)
    world.receiver_up = False
    task = await world.register(callback=CallbackTarget(url=HOOK))
    await world.beat()

    assert [(row.type, row.attempts) for row in await world.engine.deliveries(task.uid)] == [("task.succeeded", 1)]


async def test_f7_one_call_answers_for_all_due_tasks_of_a_zone(make: Make, outside: Outside) -> None:
    world = await make(z1=outside)
    for number in range(50):
        await world.register(f"d{number:02}")
    await world.beat(3)

    assert outside.polls == [[f"d{number:02}" for number in range(50)]] * 3


async def test_what_was_seen_is_written_down_before_the_next_few_are_looked_at_where_each_takes_a_call_of_its_own(
    make: Make, outside: Outside
) -> None:
    world = await make(z1=outside)
    world.zones["z1"] = replace(world.zones["z1"], one_by_one=True)
    for number in range(40):
        await world.register(f"d{number:02}")
    ended: list[int] = []

    def answer(tasks: Sequence[Task]) -> dict[str, Report]:
        ended.append(40 - world.engine.status()["live"])
        return {task.uid: SUCCEEDED for task in tasks}

    outside.answer = answer
    await world.beat()

    assert [len(ids) for ids in outside.polls] == [16, 16, 8]
    assert ended == [0, 16, 32]


async def test_nothing_is_asked_when_nothing_is_due(make: Make, outside: Outside) -> None:
    world = await make(z1=outside)
    await world.beat(3)

    assert outside.polls == []
    assert world.zone()["state"] == "idle"


async def test_nothing_is_watched_any_more_when_tracking_was_stopped(make: Make, outside: Outside) -> None:
    world = await make(z1=outside)
    task = await world.register()
    await world.beat()
    stopped = await world.manager.cancel(task.uid, stop_tracking=True)
    await world.beat(2)

    assert stopped.state is State.CANCELLED
    assert outside.polls == [["d"]]
    assert (outside.cancels, outside.forgets) == ([], [])


# ---- cancelling


async def test_cancelling_is_asked_for_with_every_poll_until_the_work_has_ended(make: Make, outside: Outside) -> None:
    world = await make(z1=outside)
    task = await world.run()
    await world.beat()
    assert (await world.manager.cancel(task.uid)).state is State.CANCELLING
    await world.beat(3)
    assert outside.cancels == ["d"] * 3
    outside.report = lambda _: Report(Verdict.FAILED, cancelled=True)
    await world.beat(2)

    assert outside.cancels == ["d"] * 4
    assert await state(world, task) is State.CANCELLED
    assert outside.forgets == ["d"]


async def test_a_cancellation_that_raises_is_asked_for_again_and_the_task_still_looked_at(make: Make, outside: Outside) -> None:
    outside.cancel = fails_with(BackendError("it is too early"))
    world = await make(z1=outside)
    task, other = await world.run(), await world.run("other")
    await world.beat()
    await world.manager.cancel(task.uid)
    outside.report = lambda _: SUCCEEDED
    await world.beat()

    assert world.errors() == [f"cannot cancel task {task.uid}: it is too early"]
    assert [await state(world, one) for one in (task, other)] == [State.SUCCEEDED] * 2


# ---- bad backends


@pytest.mark.parametrize("engine", ["memory", "local"])
async def test_f5_one_task_that_makes_the_backend_raise_costs_no_other_its_report(
    make: Make, outside: Outside, short_path: Path, engine: str
) -> None:
    world = await make(short_path if engine == "local" else None, z1=outside)
    tasks = [await world.register(f"d{number}") for number in range(9)]
    await world.beat()
    outside.report = by_id({"d4": KeyError("half an answer")}, SUCCEEDED)
    await world.beat()

    assert [await state(world, task) for task in tasks] == [State.SUCCEEDED] * 4 + [State.RUNNING] + [State.SUCCEEDED] * 4
    assert world.errors() == [f"cannot poll task {tasks[4].uid}: KeyError('half an answer')"]
    assert world.zone()["state"] == "ok"
    outside.report = lambda _: SUCCEEDED
    await world.beat()
    assert await state(world, tasks[4]) is State.SUCCEEDED


async def crowd(world: World, count: int) -> list[Task]:
    wanted = [Registration(Draft(id=f"d{number:04}", action="backup", zone="z1")) for number in range(count)]
    added = await world.manager.register(wanted, OWNER)
    await world.beat()
    return [one.task for one in added]


def odd(task: Task) -> Report:
    raise KeyError(task.id)


async def calls_of_polls(world: World, outside: Outside, count: int) -> list[int]:
    """How many calls each of the next polls takes."""
    calls = []
    for _ in range(count):
        outside.polls.clear()
        await world.beat()
        calls.append(len(outside.polls))
    return calls


async def test_f5_halving_is_paid_once_when_the_same_task_raises_with_every_poll(make: Make, outside: Outside) -> None:
    world = await make(z1=outside)
    tasks = await crowd(world, 100)
    outside.report = lambda task: odd(task) if task.id == "d0042" else GOING_ON
    first, *later = await calls_of_polls(world, outside, 5)
    assert 7 < first < 20
    assert later == [2] * 4, "all the others at once, and that one"
    assert await state(world, tasks[42]) is State.RUNNING
    outside.report = lambda _: SUCCEEDED
    await world.beat()
    assert {await state(world, task) for task in tasks} == {State.SUCCEEDED}


async def test_f5_poll_takes_few_calls_when_the_backend_raises_over_every_task(make: Make, outside: Outside) -> None:
    world = await make(z1=outside)
    tasks = await crowd(world, 300)
    outside.report = odd
    assert max(await calls_of_polls(world, outside, 20)) <= GIVEN_UP_AFTER + ASKED_ALONE
    assert (await calls_of_polls(world, outside, 3)) == [ASKED_ALONE] * 3, "all are known by now"
    outside.report = lambda _: GOING_ON
    await world.beat()
    assert await calls_of_polls(world, outside, 3) == [1] * 3, "well again"
    outside.report = lambda _: SUCCEEDED
    await world.beat()
    assert {await state(world, task) for task in tasks} == {State.SUCCEEDED}


async def test_f5_the_others_have_their_reports_soon_when_a_hundred_in_front_raise(make: Make, outside: Outside) -> None:
    world = await make(z1=outside)
    tasks = await crowd(world, 200)
    outside.report = lambda task: odd(task) if task.id < "d0100" else SUCCEEDED
    await calls_of_polls(world, outside, 4)
    assert [await state(world, task) for task in tasks] == [State.RUNNING] * 100 + [State.SUCCEEDED] * 100


@pytest.mark.parametrize("garbage", [None, 7, "text"])
async def test_f5_an_answer_that_is_no_mapping_ends_nothing_and_is_shown(make: Make, outside: Outside, garbage: Any) -> None:
    world = await make(z1=outside)
    task = await world.register()
    outside.answer = lambda tasks: garbage
    await world.beat(2)
    assert "cannot poll task" in world.errors()[-1]
    outside.answer = outside.one_by_one
    await world.beat()

    assert await state(world, task) is State.RUNNING


async def test_f5_a_report_that_makes_no_sense_harms_its_own_task_only(make: Make, outside: Outside) -> None:
    outside.report = by_id({"bad": "going fine"})
    world = await make(z1=outside)
    bad, good = await world.register("bad"), await world.register("good")
    await world.beat()

    assert [await state(world, task) for task in (bad, good)] == [State.QUEUED, State.RUNNING]
    assert world.errors()[-1].startswith(f"cannot understand the report of task {bad.uid}: AttributeError")


async def test_an_action_that_the_zone_does_not_know_any_more_harms_its_own_tasks_only(make: Make, short_path: Path) -> None:
    before, after = Outside("backup", "clone"), Outside("backup")
    before.forget = fails_with(BackendError("not yet"))
    world = await make(short_path, z1=before)
    ended, cancelled = await world.run("ended", action="clone"), await world.run("cancelled", action="clone")
    good = await world.run("good")
    await world.beat()
    before.report = by_id({"ended": SUCCEEDED})
    await world.beat()
    await world.manager.cancel(cancelled.uid)
    await world.engine.close()
    again = await make(short_path, z1=after)
    after.report = by_id({"good": SUCCEEDED})
    await again.beat()

    assert [await state(again, task) for task in (ended, cancelled, good)] == [
        State.SUCCEEDED,
        State.CANCELLING,
        State.SUCCEEDED,
    ]
    assert f"cannot cancel task {cancelled.uid}: LookupError(\"zone 'z1' knows no action 'clone' any more\")" in again.errors()
    assert any(text.startswith(f"cannot clean up after task {ended.uid}") for text in again.errors())


async def test_i6_nothing_fails_while_a_zone_gives_no_answer_and_it_comes_back(
    make: Make, outside: Outside, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "task_daemon.tracking")
    other = Outside()
    world = await make(z1=outside, z2=other)
    task = await world.register()
    await world.register(zone="z2")
    await world.beat()
    outside.answer = fails_with(SILENT)
    await world.beat(4)
    assert await state(world, task) is State.RUNNING
    assert members(await world.manager.view(await world.manager.get(task.uid)))["flags"] == ["backend_unreachable"]
    assert (world.zone()["state"], world.zone()["last_error"]) == ("unreachable", "no answer within 5 s")
    assert (world.zone("z2")["state"], len(other.polls)) == ("ok", 5)
    outside.answer = outside.one_by_one
    await world.beat(7)

    view = members(await world.manager.view(await world.manager.get(task.uid)))
    assert (view["flags"], world.zone()["state"], world.zone()["last_error"]) == ([], "ok", None)
    said = [record.getMessage() for record in caplog.records if record.name == "task_daemon.tracking"]
    assert said == ["cannot poll zone z1: no answer within 5 s", "zone z1 answers again"]


async def test_a_silent_zone_is_not_taken_as_well_again_because_nothing_is_asked_of_it(make: Make, outside: Outside) -> None:
    world = await make(z1=outside)
    task = await world.register()
    outside.answer = fails_with(SILENT)
    await world.beat()
    await world.manager.cancel(task.uid, stop_tracking=True)
    await world.beat(3)

    assert (len(outside.polls), world.zone()["state"]) == (1, "unreachable")


async def test_i6_a_silent_zone_is_asked_less_and_less_often(make: Make, outside: Outside, clock: FakeClock) -> None:
    times: list[float] = []

    def answer(_: Sequence[Task]) -> Any:
        times.append(clock.monotonic())
        raise SILENT

    outside.answer = answer
    world = await make(z1=outside)
    await world.register()
    for _ in range(300):
        await world.pass_(1.0)

    assert [round(later - earlier) for earlier, later in pairwise(times)][:6] == [10, 20, 40, 60, 60, 60]


@pytest.mark.parametrize("cheerful", ["prepare", "cancel"])
async def test_the_back_off_grows_although_other_calls_come_through(make: Make, outside: Outside, cheerful: str) -> None:
    world = await make(z1=outside)
    task = await world.run()
    await world.beat()
    outside.answer = fails_with(SILENT)
    if cheerful == "cancel":
        await world.manager.cancel(task.uid)
    for number in range(30):
        if cheerful == "prepare" and number < 3:
            await world.run(f"new{number}")
        await world.beat()

    assert world.zone()["failures"] == 7
    assert world.zone()["breaker"] == "open"


@pytest.mark.parametrize("step", ["start", "cancel", "forget"])
async def test_a_zone_that_falls_silent_in_any_step_is_unreachable(make: Make, outside: Outside, step: str) -> None:
    world = await make(z1=outside)
    task = await world.run()
    if step != "start":
        await world.beat()
    if step == "cancel":
        await world.manager.cancel(task.uid)
    if step == "forget":
        outside.report = lambda _: SUCCEEDED
    setattr(outside, step, fails_with(SILENT))
    await world.beat()
    assert world.zone()["state"] == "unreachable"
    setattr(outside, step, lambda _: None)
    await world.beat(2)

    assert world.zone()["state"] == "ok"


async def test_f6_a_hung_call_is_shown_and_the_other_zones_go_on(
    make: Make, outside: Outside, gate: threading.Event, short_path: Path
) -> None:
    entered = threading.Event()

    def hang(tasks: Sequence[Task]) -> Any:
        entered.set()
        gate.wait(60)
        return outside.one_by_one(tasks)

    other = Outside()
    outside.answer = hang
    world = await make(short_path, z1=outside, z2=other)
    hung, fine = await world.register(), await world.register(zone="z2")
    await world.beat(besides={"z1"})
    eventually("the call of z1 is out", entered.is_set)
    await world.beat(2, besides={"z1"})

    assert (world.zone()["state"], world.zone("z2")["state"]) == ("hung", "ok")
    assert world.zone()["last_error"] == "no answer for 20 s to a call that should take at most 5 s"
    assert [await state(world, task) for task in (hung, fine)] == [State.QUEUED, State.RUNNING]
    assert members(await world.manager.view(hung))["flags"] == ["backend_unreachable"]
    assert len(other.polls) == 3
    gate.set()
    await world.engine.idle()
    await world.beat()
    assert world.zone()["state"] == "ok"
    assert await state(world, hung) is State.RUNNING


async def test_a_poll_whose_token_is_old_starts_and_writes_nothing(make: Make, outside: Outside) -> None:
    world = await make(z1=outside)
    task = await world.run()
    known = world.engine.get(task.uid)
    assert known is not None
    world.poller.write(MemoryBeat("z1", -1), [Change(known, replace(known, launched=True), save=True)])
    outside.start = lambda _: SUCCEEDED
    world.poller(MemoryBeat("z1", -1))

    assert await state(world, task) is State.QUEUED
    assert (outside.starts, outside.forgets) == ([], [])


@pytest.mark.parametrize(("tasks", "times"), [(1, 0), (AT_ONCE, 0), (AT_ONCE + 1, 1), (3 * AT_ONCE, 2)])
async def test_a_poll_gives_way_between_its_pieces(
    tasks: int, times: int, make: Make, outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[str] = []
    monkeypatch.setattr(MemoryBeat, "give_way", lambda beat: given.append(beat.zone))
    world = await make(z1=outside)
    for number in range(tasks):
        await world.register(f"d-{number}")
    given.clear()
    await world.beat()

    assert given == ["z1"] * times
