"""Zones and actions as they are listed, and why a task is where it is."""

from pathlib import Path

import pytest

from task_daemon.clock import FakeClock
from task_daemon.core.errors import (
    BackendUnreachable,
    NotFound,
)
from task_daemon.core.model import Task
from task_daemon.core.view import rfc3339
from tests.tracking.outside import TOLD, VANISHED, Make, Outside, World, at, by_id, ended, fails_with

# ---- zones and actions


async def test_zones_are_listed_by_name_with_their_live_tasks(make: Make, outside: Outside, clock: FakeClock) -> None:
    world = await make(z2=outside, z1=Outside("clone"))
    await world.register(zone="z2")
    await world.register("fixed", zone="z2", action="fixed")
    await world.beat()
    first, second = world.manager.zones()

    assert [(view["zone"], view["live_tasks"], view["state"]) for view in (first, second)] == [("z1", 0, "idle"), ("z2", 2, "ok")]
    assert second["next_poll_at"] is not None
    assert dict(world.manager.tally()) == {("z2", "backup", "running"): 1, ("z2", "fixed", "running"): 1}
    assert world.manager.status()["live"] == 2


async def test_a_paused_zone_is_not_polled_until_it_is_resumed(world: World, outside: Outside) -> None:
    await world.register()
    paused = await world.manager.pause("z1", True)
    await world.beat(3)
    assert (paused["state"], paused["next_poll_at"], outside.polls) == ("paused", None, [])
    resumed = await world.manager.pause("z1", False)
    await world.pass_(0.1)

    assert (resumed["state"], outside.polls) == ("idle", [["d"]])
    with pytest.raises(NotFound, match="cannot resume zone 'z9': not configured; zones: z1"):
        await world.manager.pause("z9", False)


async def test_actions_are_listed_once_for_each_kind_with_the_zones_that_offer_them(make: Make) -> None:
    world = await make(z2=Outside("backup", "fixed"), z1=Outside("backup"))
    backup, fixed = world.manager.actions()

    assert (backup["action"], backup["backend"], backup["zones"], backup["cancellable"]) == ("backup", "test", ["z1", "z2"], True)
    assert (fixed["zones"], fixed["cancellable"], fixed["summary"]) == (["z2"], False, "Do fixed.")
    assert set(backup["params"]["$defs"]["Params"]["properties"]) == {"target", "parts"}


# ---- why


async def why(world: World, task: Task) -> str:
    sentence: str = (await world.manager.explain(task.uid))["waiting_for"]
    return sentence


async def test_a_live_task_is_explained_by_what_it_waits_for(world: World, outside: Outside) -> None:
    outside.report = lambda _: VANISHED
    tracked, run = await world.register(), await world.run("run")
    assert await why(world, run) == "the work to be started"
    await world.beat()
    assert await why(world, tracked) == "the work to be seen in the backend for the first time"
    outside.report = at(1.0)
    await world.beat()
    assert await why(world, tracked) == "the work to end"
    outside.report = by_id({"d": VANISHED})
    await world.beat(2)
    assert await why(world, tracked) == "more evidence: the backend did not know the work in the last 2 answers"
    assert (await world.manager.explain(tracked.uid))["missed_polls"] == 2
    await world.manager.cancel(run.uid)
    assert await why(world, run) == "the backend to confirm the cancellation"


async def test_a_stalled_task_is_explained_as_such(world: World, outside: Outside, clock: FakeClock) -> None:
    outside.report = at(1.0)
    task = await world.register()
    await world.beat()
    clock.advance(601)
    await world.beat()

    assert await why(world, task) == "the work to end (no progress for a long time)"


async def test_a_task_of_a_zone_in_trouble_is_explained_by_it(world: World, outside: Outside) -> None:
    task = await world.register()
    outside.answer = fails_with(BackendUnreachable("refused"))
    await world.beat()
    assert await why(world, task) == "zone 'z1', which is unreachable: refused"
    await world.manager.pause("z1", True)
    assert await why(world, task) == "zone 'z1', which is paused: refused"
    assert (await world.manager.explain(task.uid))["next_poll_at"] is None
    await world.manager.pause("z1", False)
    world.book.polled("z1")
    world.book.asked("z1")
    world.clock.advance(8.0)

    assert await why(world, task) == "zone 'z1', which is hung: no answer for 8 s to a call that should take at most 5 s"


async def test_a_task_of_an_unknown_zone_is_explained_by_that(make: Make, outside: Outside, short_path: Path) -> None:
    world = await make(short_path, z1=outside)
    task = await world.register()
    await world.engine.close()
    again = await make(short_path, z2=Outside())
    explained = await again.manager.explain(task.uid)

    assert explained["waiting_for"] == "zone 'z1' to be configured again; it fails at its deadline otherwise"
    assert explained["zone"] == {"zone": "z1", "state": "not configured"}
    assert explained["deadline_at"] is not None


async def test_an_ended_task_is_explained_by_who_was_told(world: World, outside: Outside) -> None:
    quiet = await ended(world, outside, "quiet")
    told = await ended(world, outside, "told", callback=TOLD)
    assert await why(world, quiet) == "nothing: it has ended"
    assert await why(world, told) == "nothing: it has ended and everybody was told"
    outside.forget = fails_with(OSError("busy"))
    untidy = await ended(world, outside, "untidy", params={})

    explained = await world.manager.explain(untidy.uid)
    assert (explained["to_clean_up"], explained["deadline_at"], explained["next_poll_at"]) == (True, None, None)
    assert not (await world.manager.explain(told.uid))["to_clean_up"]


async def test_an_ended_task_is_explained_by_the_callback_that_is_not_through(world: World, outside: Outside) -> None:
    world.receiver_up = False
    task = await ended(world, outside, callback=TOLD)
    (row,) = await world.manager.callbacks_of(task.uid)

    sentence = await why(world, task)
    assert sentence.startswith(f"the receiver of callback {row.id}: down; next try 2027-")
    world.refused = True
    await world.manager.replay(row.id)
    assert await why(world, task) == f"the receiver of callback {row.id}: down; next try {rfc3339(world.clock.now())}"
    await world.pass_(1.0)
    again = f"POST /v1/callbacks/{row.id}/replay sends it again"
    assert await why(world, task) == f"nobody any more: callback {row.id} was given up; {again}"
