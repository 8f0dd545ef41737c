"""What the API can ask for: registering, reading, waiting for an end, a change or an event."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from task_daemon.clock import FakeClock
from task_daemon.core.errors import (
    Conflict,
    CursorExpired,
    IdempotencyKeyReused,
    NotFound,
    QueueFull,
    QuotaExceeded,
    UnknownAction,
    UnknownZone,
)
from task_daemon.core.model import Owner, State, Task
from task_daemon.tracking.manager import Limits
from tests.making import members
from tests.tracking.outside import (
    OWNER,
    SUCCEEDED,
    TOLD,
    Make,
    Outside,
    World,
    at,
    by_id,
    ended,
    stored,
    turns,
    waited,
    wanted,
)

OTHER = Owner(2000, 2000, 1)


# ---- registering


async def test_a_registration_that_is_there_already_is_given_back(world: World) -> None:
    first = await world.register()
    await world.beat()
    (again,) = await world.manager.register([wanted()], OWNER)

    assert (again.replayed, again.task.uid, again.task.state) == (True, first.uid, State.RUNNING)
    assert await stored(world) == ["d"]


async def test_the_same_object_with_other_members_is_a_conflict_that_names_them(world: World) -> None:
    await world.register()
    with pytest.raises(Conflict) as caught:
        await world.manager.register([wanted(timeout=5.0, labels={"a": "b"})], OWNER)

    assert sorted(pointer for pointer, _ in caught.value.members) == ["/labels", "/timeout"]


async def test_an_ended_task_may_be_registered_anew(world: World, outside: Outside) -> None:
    first = await ended(world, outside)
    second = await world.register()

    assert second.uid != first.uid
    assert await stored(world) == ["d", "d"]


@pytest.mark.parametrize(
    ("bad", "error", "pointer"),
    [
        ({"zone": "z9"}, UnknownZone, "/tasks/1/zone"),
        ({"action": "fly"}, UnknownAction, "/tasks/1/action"),
    ],
)
async def test_nothing_of_a_batch_is_stored_when_one_is_refused_and_the_index_is_named(
    world: World, bad: dict[str, str], error: type[UnknownZone], pointer: str
) -> None:
    with pytest.raises(error) as caught:
        await world.manager.register([wanted("a"), wanted("b", **bad), wanted("c")], OWNER)

    assert [where for where, _ in caught.value.members] == [pointer]
    assert caught.value.extra == {"index": 1}
    assert caught.value.detail.startswith("task 1 of the batch: cannot register 'b'")
    assert await stored(world) == []


async def test_nothing_of_a_batch_is_stored_when_one_conflicts(world: World) -> None:
    await world.register("b")
    with pytest.raises(Conflict) as caught:
        await world.manager.register([wanted("a"), wanted("b", timeout=5.0)], OWNER)

    assert caught.value.extra["index"] == 1
    assert await stored(world) == ["b"]


async def test_a_key_gives_the_first_answer_even_after_the_end(world: World, outside: Outside) -> None:
    (first,) = await world.manager.register([wanted()], OWNER, "key")
    outside.report = lambda _: SUCCEEDED
    await world.beat()
    (again,) = await world.manager.register([wanted()], OWNER, "key")

    assert (again.replayed, again.task.uid, again.task.state) == (True, first.task.uid, State.SUCCEEDED)


async def test_a_key_is_refused_for_another_body_and_belongs_to_its_user(world: World) -> None:
    await world.manager.register([wanted()], OWNER, "key")
    with pytest.raises(IdempotencyKeyReused):
        await world.manager.register([wanted("other")], OWNER, "key")
    (theirs,) = await world.manager.register([wanted("theirs")], OTHER, "key")

    assert not theirs.replayed
    assert await stored(world) == ["d", "theirs"]


async def test_one_key_covers_a_whole_batch(world: World) -> None:
    first = await world.manager.register([wanted("a"), wanted("b")], OWNER, "key")
    again = await world.manager.register([wanted("a"), wanted("b")], OWNER, "key")

    assert [one.task.uid for one in again] == [one.task.uid for one in first]
    assert [one.replayed for one in again] == [True, True]


async def test_registrations_are_refused_beyond_the_limits(make: Make, outside: Outside) -> None:
    world = await make(limits=Limits(live_tasks=3, live_tasks_per_uid=2), z1=outside)
    await world.manager.register([wanted("a"), wanted("b")], OWNER)
    with pytest.raises(QuotaExceeded, match="user 1000 has 2 live tasks, and at most 2 may be") as caught:
        await world.register("c")
    assert caught.value.retry_after == 10.0
    with pytest.raises(QueueFull, match="2 tasks are live, and at most 3 may be"):
        await world.manager.register([wanted("c"), wanted("d")], OTHER)
    await world.manager.register([wanted("c")], OTHER)
    assert await stored(world) == ["a", "b", "c"]
    outside.report = lambda _: SUCCEEDED
    await world.beat()

    await world.register("c")


async def test_f10_repeated_registration_is_the_replay_when_the_limits_are_reached(make: Make, outside: Outside) -> None:
    world = await make(limits=Limits(live_tasks=3, live_tasks_per_uid=2), z1=outside)
    first = await world.manager.register([wanted("a"), wanted("b")], OWNER, "key")
    again = await world.manager.register([wanted("a"), wanted("b")], OWNER, "key")
    assert [(one.task.uid, one.replayed) for one in again] == [(one.task.uid, True) for one in first]
    (alone,) = await world.manager.register([wanted("a")], OWNER)
    assert (alone.task.uid, alone.replayed) == (first[0].task.uid, True)
    with pytest.raises(QuotaExceeded):
        await world.manager.register([wanted("a"), wanted("c")], OWNER)
    with pytest.raises(Conflict):
        await world.manager.register([wanted("a", timeout=5.0)], OWNER)
    await world.manager.register([wanted("o")], OTHER)
    (last,) = await world.manager.register([wanted("o")], OTHER)
    assert last.replayed
    assert await stored(world) == ["a", "b", "o"]


async def test_validating_stores_nothing(world: World) -> None:
    (task,) = world.manager.validate([wanted()], OWNER)
    with pytest.raises(UnknownZone, match="task 1 of the batch"):
        world.manager.validate([wanted(), wanted(zone="z9")], OWNER)

    assert task.id == "d"
    assert await stored(world) == []


# ---- reading and waiting


async def test_what_is_not_there_is_not_found_anywhere(world: World) -> None:
    manager = world.manager
    for asking in (
        manager.get("x"),
        manager.wait("x", 1.0),
        manager.cancel("x"),
        manager.resolve("x", State.FAILED, ""),
        manager.delete("x"),
        manager.poll_now("x"),
        manager.events(0, 10, "x"),
        manager.callbacks_of("x"),
        manager.callback("x"),
        manager.replay("x"),
        manager.acknowledge("x"),
        manager.pause("x", True),
        manager.explain("x"),
    ):
        with pytest.raises(NotFound):
            await asking


async def test_a_wait_ends_when_the_task_does(world: World, outside: Outside) -> None:
    task = await world.register()
    await world.beat()
    waiting = [asyncio.ensure_future(world.manager.wait(task.uid, 300.0)) for _ in range(2)]
    await turns()
    outside.report = at(50.0)
    await world.beat()
    assert not any(one.done() for one in waiting), "progress is no end"
    outside.report = lambda _: SUCCEEDED
    await world.beat()

    assert [(await one).state for one in waiting] == [State.SUCCEEDED] * 2
    assert world.engine.watched == set()


async def test_a_wait_for_what_has_ended_answers_at_once(world: World, outside: Outside) -> None:
    task = await ended(world, outside)

    assert (await world.manager.wait(task.uid, 300.0)).done


async def test_a_wait_ends_with_the_task_as_it_is_when_time_is_up(world: World, clock: FakeClock) -> None:
    task = await world.register()
    began = clock.monotonic()
    seen = await waited(world, asyncio.ensure_future(world.manager.wait(task.uid, 30.0)))

    assert seen.state is State.RUNNING
    assert 30 <= clock.monotonic() - began <= 32
    assert (await world.manager.wait(task.uid, 0.0)).state is State.RUNNING


@pytest.mark.parametrize("engine", ["memory", "local"])
async def test_a_wait_for_change_ends_with_progress_that_only_memory_knows(
    make: Make, outside: Outside, short_path: Path, engine: str
) -> None:
    world = await make(short_path if engine == "local" else None, z1=outside)
    task = await world.register()
    await world.beat()
    known = (await world.manager.get(task.uid)).revision
    waiting = asyncio.ensure_future(world.manager.wait(task.uid, 300.0, known))
    patient = asyncio.ensure_future(world.manager.wait(task.uid, 300.0))
    await turns()
    assert world.engine.watched == {task.uid}
    await world.beat()
    assert not waiting.done(), "nothing has changed"
    outside.report = at(50.0)
    await world.beat()

    assert (await asyncio.wait_for(waiting, 20)).revision == known + 1
    assert not patient.done()
    world.manager.stop_waiting()
    await asyncio.wait_for(patient, 20)
    assert world.engine.watched == set()


async def test_a_wait_for_change_answers_at_once_when_the_revision_is_another(world: World) -> None:
    task = await world.register()

    assert (await world.manager.wait(task.uid, 300.0, task.revision + 5)).revision == task.revision


async def test_a_change_between_the_look_and_the_sleep_is_not_missed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The task ends while the wait reads it: the version it read is the old one, and yet it wakes up."""
    task = await world.register()
    load = world.manager.get

    async def slowly(uid: str) -> Task:
        old = await load(uid)
        if not old.done:
            await world.manager.cancel(uid, stop_tracking=True)
            await turns()
        return old

    waiting = world.manager.wait(task.uid, 300.0)
    monkeypatch.setattr(world.manager, "get", _once(slowly, load))

    assert (await asyncio.wait_for(waiting, 20)).state is State.CANCELLED


def _once(first: Callable[..., Any], then: Callable[..., Any]) -> Callable[..., Any]:
    calls = iter([first])

    def call(*arguments: Any) -> Any:
        return next(calls, then)(*arguments)

    return call


async def test_everybody_who_waits_gets_what_is_known_when_the_daemon_stops(world: World) -> None:
    task = await world.register()
    waiting = [
        asyncio.ensure_future(world.manager.wait(task.uid, 300.0)),
        asyncio.ensure_future(world.manager.wait(task.uid, 300.0, task.revision)),
    ]
    events = asyncio.ensure_future(world.manager.events(1, 10, wait=300.0))
    await turns()
    world.manager.stop_waiting()

    assert [(await asyncio.wait_for(one, 20)).uid for one in waiting] == [task.uid] * 2
    assert await asyncio.wait_for(events, 20) == []
    assert not (await world.manager.wait(task.uid, 300.0)).done, "and nobody waits any more"


async def test_a_wait_that_is_given_up_leaves_nothing_behind(world: World) -> None:
    task = await world.register()
    waiting = asyncio.ensure_future(world.manager.wait(task.uid, 300.0, task.revision))
    await turns()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    assert world.engine.watched == set()
    await world.beat()


async def test_a_view_shows_what_only_the_engine_knows(world: World, outside: Outside) -> None:
    task = await ended(world, outside, callback=TOLD)
    live = await world.register("live")
    first, second = map(members, await world.manager.views([task, live]))

    assert first["callbacks"] == {"pending": 0, "delivered": 1, "dead": 0}
    assert (first["next_poll_at"], second["last_polled_at"]) == (None, None)
    assert second["next_poll_at"] is not None
    assert [members(view) for view in world.manager.fresh([live])[0]] == [second]
    assert members(await world.manager.view(task)) == first


async def test_tasks_are_shown_before_they_are_stored_as_right_after_it(world: World) -> None:
    before: list[Any] = []
    added = await world.manager.register(
        [wanted("a"), wanted("b")], OWNER, meanwhile=lambda tasks: before.append(world.manager.coming(tasks))
    )

    assert before == [world.manager.fresh([each.task for each in added])]
    assert before[0][0][0].next_poll_at is not None


async def test_only_live_tasks_are_shown_as_out_of_reach(world: World, outside: Outside) -> None:
    done, live = await ended(world, outside), await world.register("live")
    world.book.failed("z1", "refused")

    assert [members(await world.manager.view(task))["flags"] for task in (done, live)] == [[], ["backend_unreachable"]]


async def test_whether_a_task_can_be_cancelled_is_shown(make: Make, outside: Outside, short_path: Path) -> None:
    world = await make(short_path, z1=outside)
    tasks = [await world.register(), await world.run("run"), await world.run("fixed", action="fixed")]
    assert [members(await world.manager.view(task))["cancellable"] for task in tasks] == [False, True, False]
    await world.engine.close()
    again = await make(short_path, z2=Outside())

    assert not members(await again.manager.view(tasks[1]))["cancellable"], "its zone is not configured any more"


async def test_asking_again_is_worth_it_after_the_next_poll(world: World, clock: FakeClock) -> None:
    task = await world.register()
    assert world.manager.retry_after(task) == 1.0
    await world.beat()

    view = members(await world.manager.view(await world.manager.get(task.uid)))
    seconds = world.manager.retry_after(task)
    assert 1.0 < seconds <= 10.0
    assert view["next_poll_at"] is not None
    gone = replace(task, uid="gone")
    assert world.manager.retry_after(gone) == 1.0


# ---- events


async def test_events_come_after_the_cursor_and_of_one_task(world: World, outside: Outside) -> None:
    first, second = await ended(world, outside, "a"), await ended(world, outside, "b")
    everything = await world.manager.events(0, 100)

    assert [event.seq for event in everything] == [1, 2, 3, 4]
    assert [event.seq for event in await world.manager.events(2, 1)] == [3]
    assert [event.type for event in await world.manager.events(0, 100, second.uid)] == ["task.registered", "task.succeeded"]
    assert first.uid not in {event.uid for event in await world.manager.events(0, 100, second.uid)}


async def test_a_wait_for_events_ends_with_the_first(world: World) -> None:
    waiting = asyncio.ensure_future(world.manager.events(0, 100, wait=300.0))
    await turns()
    assert not waiting.done()
    task = await world.register()

    assert [event.uid for event in await asyncio.wait_for(waiting, 20)] == [task.uid]


async def test_a_wait_for_the_events_of_one_task_does_not_end_with_those_of_another(world: World, outside: Outside) -> None:
    task = await world.register()
    await world.beat()
    waiting = asyncio.ensure_future(world.manager.events(2, 100, task.uid, wait=300.0))
    await turns()
    await world.register("other")
    await turns()
    assert not waiting.done()
    outside.report = by_id({"d": SUCCEEDED})
    await world.beat()

    assert [event.type for event in await asyncio.wait_for(waiting, 20)] == ["task.succeeded"]


async def test_a_wait_for_events_ends_without_any_when_time_is_up(world: World, clock: FakeClock) -> None:
    began = clock.monotonic()

    assert await waited(world, asyncio.ensure_future(world.manager.events(0, 10, wait=30.0))) == []
    assert 30 <= clock.monotonic() - began <= 32
    assert await world.manager.events(0, 10) == []


async def test_a_cursor_older_than_what_is_retained_is_refused(world: World, outside: Outside, clock: FakeClock) -> None:
    await ended(world, outside)
    await world.engine.purge(clock.now() + 1, 100)

    with pytest.raises(CursorExpired):
        await world.manager.events(1, 10, wait=300.0)
