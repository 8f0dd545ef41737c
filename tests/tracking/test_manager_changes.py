"""Cancelling, resolving, deleting, looking now, and callbacks: what each allows, also when somebody else comes first."""

from collections.abc import Awaitable, Callable, Sequence

import pytest
from msgspec.structs import replace

from task_daemon.core.errors import (
    AlreadyFinished,
    Gone,
    NotCancellable,
    NotDone,
    NotLost,
)
from task_daemon.core.model import Change, Owner, State, Task
from task_daemon.tracking.manager import CHANGE_TRIES
from tests.tracking.outside import OWNER, SUCCEEDED, TOLD, Outside, World, ended, fails_with, lost, stored

OTHER = Owner(2000, 2000, 1)


# ---- cancelling, resolving, deleting, looking now


async def test_tracked_work_is_only_let_go_when_that_is_what_was_asked_for(world: World) -> None:
    task = await world.register()
    with pytest.raises(NotCancellable, match="stop_tracking"):
        await world.manager.cancel(task.uid)

    assert (await world.manager.cancel(task.uid, stop_tracking=True)).state is State.CANCELLED


async def test_a_cancellation_is_told_like_every_other_end(world: World) -> None:
    task = await world.register(callback=TOLD)
    await world.manager.cancel(task.uid, stop_tracking=True)

    assert [row.type for row in await world.manager.callbacks_of(task.uid)] == ["task.cancelled"]


async def test_work_that_was_never_started_is_cancelled_at_once(world: World, outside: Outside) -> None:
    task = await world.run(action="fixed")
    assert (await world.manager.cancel(task.uid)).state is State.CANCELLED
    await world.beat()

    assert outside.starts == []


async def test_running_work_is_cancelled_with_a_poll_that_comes_soon(world: World, outside: Outside) -> None:
    task = await world.run()
    await world.beat()
    cancelling = await world.manager.cancel(task.uid)
    assert (cancelling.state, outside.cancels) == (State.CANCELLING, [])
    await world.pass_(0.1)
    assert outside.cancels == ["d"]

    assert await world.manager.cancel(task.uid) == await world.manager.get(task.uid), "asked again, nothing more happens"
    assert (await world.types(task.uid)).count("cancelling") == 1


async def test_an_action_that_cannot_be_cancelled_is_not_once_it_runs(world: World) -> None:
    task = await world.run(action="fixed")
    await world.beat()

    with pytest.raises(NotCancellable, match="action 'fixed' cannot be cancelled once it runs"):
        await world.manager.cancel(task.uid)


async def test_what_has_ended_cannot_be_cancelled_or_looked_at(world: World, outside: Outside) -> None:
    task = await ended(world, outside)
    run = await ended(world, outside, "fixed", action="fixed", params={})

    for one in (task, run):
        with pytest.raises(AlreadyFinished, match="it has succeeded already"):
            await world.manager.cancel(one.uid, stop_tracking=True)
        with pytest.raises(AlreadyFinished, match="it has succeeded already"):
            await world.manager.poll_now(one.uid)


async def test_a_lost_task_is_resolved_by_a_person(world: World, outside: Outside) -> None:
    task = await lost(world, outside)
    resolved = await world.manager.resolve(task.uid, State.SUCCEEDED, "compared by hand")

    assert (resolved.state, resolved.error) == (State.SUCCEEDED, None)
    assert (await world.events(task.uid))[-1].detail == {"state": "succeeded", "reason": "compared by hand"}
    with pytest.raises(NotLost):
        await world.manager.resolve(task.uid, State.FAILED, "")


async def test_a_deleted_task_is_gone_and_a_live_one_cannot_be_deleted(world: World, outside: Outside) -> None:
    task = await world.run(params={"target": "x"}, labels={"a": "b"})
    await world.beat()
    with pytest.raises(NotDone, match="it is running; only an ended task can be deleted, cancel it first"):
        await world.manager.delete(task.uid)
    outside.report = lambda _: SUCCEEDED
    await world.beat()
    await world.manager.delete(task.uid)

    for asking in (world.manager.get(task.uid), world.manager.delete(task.uid), world.manager.wait(task.uid, 1.0)):
        with pytest.raises(Gone):
            await asking
    kept = await world.engine.load(task.uid)
    assert kept is not None
    assert (kept.deleted, kept.params, kept.labels) == (True, None, None)
    assert await stored(world) == []


async def test_looking_now_polls_before_the_interval_is_over(world: World, outside: Outside) -> None:
    task = await world.register()
    await world.beat()
    await world.pass_(0.5)
    assert len(outside.polls) == 1
    assert (await world.manager.poll_now(task.uid)).uid == task.uid
    await world.manager.poll_now(task.uid)
    await world.pass_(0.1)

    assert len(outside.polls) == 2


@pytest.mark.parametrize("losses", [1, CHANGE_TRIES - 1])
async def test_a_change_that_loses_a_race_is_made_again_on_the_newer_task(
    world: World, outside: Outside, monkeypatch: pytest.MonkeyPatch, losses: int
) -> None:
    task = await world.run()
    await world.beat()
    race(world, monkeypatch, losses, nudge(world))
    cancelling = await world.manager.cancel(task.uid)

    assert cancelling.state is State.CANCELLING
    assert cancelling.task_seq == 4 + losses
    assert await world.manager.get(task.uid) == cancelling


async def test_a_change_that_is_overtaken_by_the_end_is_refused(
    world: World, outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = await world.run()
    await world.beat()
    outside.report = lambda _: SUCCEEDED

    async def end(_: Task) -> None:
        await world.beat()

    race(world, monkeypatch, 1, end)
    with pytest.raises(AlreadyFinished):
        await world.manager.cancel(task.uid)

    assert await world.types(task.uid) == ["registered", "launching", "running", "succeeded", "tidied"]


async def test_two_who_resolve_at_once_do_not_both_succeed(
    world: World, outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = await lost(world, outside)

    async def first(_: Task) -> None:
        await world.manager.resolve(task.uid, State.FAILED, "empty")

    race(world, monkeypatch, 1, first)
    with pytest.raises(NotLost):
        await world.manager.resolve(task.uid, State.SUCCEEDED, "fine")

    assert (await world.types(task.uid)).count("resolved") == 1


async def test_a_deletion_while_the_backend_cleans_up_holds(
    world: World, outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside.forget = fails_with(OSError("busy"))
    task = await ended(world, outside, params={})
    assert not task.tidy
    outside.forget = lambda _: None

    async def tidied(_: Task) -> None:
        await world.beat()

    race(world, monkeypatch, 1, tidied)
    await world.manager.delete(task.uid)

    kept = await world.engine.load(task.uid)
    assert kept is not None
    assert (kept.deleted, kept.tidy) == (True, True)


async def test_a_change_gives_up_when_it_loses_everyrace(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    task = await world.run()
    await world.beat()
    race(world, monkeypatch, CHANGE_TRIES, nudge(world))

    with pytest.raises(AssertionError, match="changed 5 times under our hands"):
        await world.manager.cancel(task.uid)


def race(world: World, monkeypatch: pytest.MonkeyPatch, times: int, other: Callable[[Task], Awaitable[object]]) -> None:
    """Before each of the next `times` changes, somebody else's comes first."""
    change = world.engine.change
    left = [other] * times

    async def raced(changes: Sequence[Change]) -> list[bool]:
        if left:
            first = left.pop()
            with monkeypatch.context() as plain:
                plain.setattr(world.engine, "change", change)
                await first(changes[0].before)
        return await change(changes)

    monkeypatch.setattr(world.engine, "change", raced)


def nudge(world: World) -> Callable[[Task], Awaitable[object]]:
    """Somebody else's change that does not stand in the way of ours."""

    async def nudged(task: Task) -> None:
        assert await world.engine.change([Change(task, replace(task, task_seq=task.task_seq + 1), save=True)]) == [True]

    return nudged


# ---- callbacks


async def test_callbacks_are_listed_by_task_by_state_and_by_owner(world: World, outside: Outside) -> None:
    task = await ended(world, outside, callback=TOLD)
    world.receiver_up = False
    await ended(world, outside, "later", callback=TOLD)
    (row,) = await world.manager.callbacks_of(task.uid)

    assert (row.state, row.type) == ("delivered", "task.succeeded")
    assert await world.manager.callback(row.id) == row
    assert len(await world.manager.callbacks(None, None, 10)) == 2
    assert [other.state for other in await world.manager.callbacks("pending", None, 10, OWNER.uid)] == ["pending"]
    assert await world.manager.callbacks(None, None, 10, OTHER.uid) == []


async def test_a_callback_is_sent_again_or_acknowledged_on_demand(world: World, outside: Outside) -> None:
    world.receiver_up = False
    task = await ended(world, outside, callback=TOLD)
    (row,) = await world.manager.callbacks_of(task.uid)
    assert (await world.manager.acknowledge(row.id)).state == "acked"
    world.receiver_up = True
    assert (await world.manager.replay(row.id)).state == "pending"
    await world.pass_(1.0)

    assert (await world.manager.callback(row.id)).state == "delivered"


async def test_a_sign_of_life_of_the_owner_sends_what_waits(world: World, outside: Outside) -> None:
    world.receiver_up = False
    task = await ended(world, outside, callback=TOLD)
    world.receiver_up = True
    await world.pass_(60.0)
    assert (await world.manager.callbacks_of(task.uid))[0].state == "pending"
    world.manager.heard_of(OTHER.uid)
    await world.pass_(2.0)
    assert (await world.manager.callbacks_of(task.uid))[0].state == "pending"
    world.manager.heard_of(OWNER.uid)
    await world.pass_(2.0)

    assert (await world.manager.callbacks_of(task.uid))[0].state == "delivered"
