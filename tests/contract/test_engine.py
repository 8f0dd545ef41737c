"""What every engine must do: changes, polls and time.

Registrations are in test_engine_registering.py, deliveries in test_engine_deliveries.py.
"""

from itertools import pairwise

import pytest
from msgspec.structs import replace

from task_daemon.core import transitions
from task_daemon.core.errors import CursorExpired
from task_daemon.core.model import Owner, Query, State
from task_daemon.core.ports import Again, Beat, Idle, NewTask
from tests.contract.engine_case import Case, a_delivery, a_task, progress, running

# ---- changes


async def test_i3_change_is_applied_once_when_made_twice_from_the_same_version(case: Case) -> None:
    task = a_task()
    await case.register(task)
    change = running(task, case.clock.now())
    assert await case.engine.change([change, change]) == [True, False]
    assert [event.type for event in await case.engine.events(0, 10, task.uid)] == ["task.registered", "task.running"]
    assert case.engine.tally() == {("z1", "backup", "running"): 1}


async def test_i4_end_event_and_deliveries_are_there_together_when_the_task_ends(case: Case) -> None:
    task = a_task()
    await case.register(task)
    await case.end(task, a_delivery(task))
    (row,) = await case.engine.deliveries(task.uid)
    last = (await case.engine.events(0, 10))[-1]
    assert (row.seq, row.task_seq, last.type) == (last.seq, last.task_seq, "task.succeeded")
    assert case.engine.get(task.uid) is None
    assert case.engine.tally() == {}
    assert case.engine.live_of(1000) == 0


async def test_memory_change_is_refused_when_the_version_is_old_and_survives_closing(case: Case) -> None:
    task = a_task()
    await case.register(task)
    seen = progress(task, misses=1)
    assert await case.engine.change([seen]) == [True]
    assert await case.engine.events(1, 10) == []
    stale = progress(replace(task, task_seq=7), misses=2)
    assert await case.engine.change([stale]) == [False]
    await case.reopen()
    assert case.engine.get(task.uid) == seen.task


async def test_revision_rises_when_two_changes_start_from_one_version(case: Case) -> None:
    task = a_task()
    await case.register(task)
    await case.engine.change([progress(task, misses=1)])
    await case.engine.change([running(task, case.clock.now())])
    now = case.engine.get(task.uid)
    assert now is not None
    assert (now.revision, now.state) == (3, State.RUNNING)


async def test_watched_task_is_told_when_it_changes_in_memory_only(case: Case) -> None:
    one, other = a_task(id="a"), a_task(id="b")
    await case.register(one, other)
    case.engine.watched.add(one.uid)
    case.told.clear()
    await case.engine.change([progress(one), progress(other)])
    await case.engine.idle()
    assert [task.id for tasks, _ in case.told for task in tasks] == ["a"]


async def test_report_is_refused_when_the_token_is_stale(case: Case) -> None:
    task = a_task()
    await case.register(task)
    beats: list[Beat] = []

    def act(beat: Beat) -> Again:
        beats.append(beat)
        return Again()

    case.acts["z1"] = act
    await case.advance(10)
    await case.advance(10)
    old, new = beats[0], beats[-1]
    change = running(task, case.clock.now())
    assert case.engine.report(old, [change, progress(task)]) == [False, False]
    assert case.engine.batch(old) == []
    assert case.engine.get(task.uid) == task
    assert case.engine.report(new, [change]) == [True]


# ---- polls


async def test_zone_is_polled_at_once_when_the_engine_opens(case: Case) -> None:
    await case.register(a_task())
    case.polls.clear()
    await case.reopen()
    await case.advance(0.05)
    assert {zone for zone, _, _ in case.polls} == {"z1", "z2"}
    assert ["disk-1"] in case.polled("z1")


async def test_new_task_is_polled_soon_and_alone_when_registered(case: Case) -> None:
    case.clock.advance(1)
    await case.engine.idle()
    case.polls.clear()
    await case.register(a_task())
    await case.advance(0.05)
    assert case.polls[0][:2] == ("z1", ["disk-1"])
    assert case.polled("z2") == []


async def test_beats_stay_on_the_grid_and_apart_by_zone_when_time_passes(case: Case) -> None:
    for _ in range(400):
        await case.advance(0.1)
    times = {zone: [at for name, _, at in case.polls if name == zone] for zone in ("z1", "z2")}
    for polled in times.values():
        assert len(polled) == 4
        assert all(abs((later - earlier) - 10) < 0.11 for earlier, later in pairwise(polled))
    assert abs((times["z1"][0] - times["z2"][0]) % 10) > 0.2


async def test_late_beat_runs_once_when_many_intervals_were_missed(case: Case) -> None:
    await case.advance(1000)
    assert len(case.polled("z1")) == 1
    case.clock.jump(100_000)
    await case.engine.idle()
    assert len(case.polled("z1")) == 1


async def test_zone_waits_when_the_poll_asks_for_a_back_off(case: Case) -> None:
    case.acts["z1"] = lambda _beat: Again(30.0)
    await case.advance(10)
    case.polls.clear()
    case.engine.poke("z1")
    await case.advance(29)
    assert case.polled("z1") == []
    await case.advance(1)
    assert len(case.polled("z1")) == 1


async def test_zone_is_polled_again_at_once_when_there_is_more_to_do(case: Case) -> None:
    left = [Again(0.0), Again(0.0), Again()]
    case.acts["z1"] = lambda _beat: left.pop(0)
    await case.advance(10)
    assert left == []


async def test_idle_zone_is_left_alone_until_something_is_registered(case: Case) -> None:
    case.acts["z1"] = lambda _beat: Idle()
    await case.advance(10)
    await case.advance(100)
    assert len(case.polled("z1")) == 1
    await case.register(a_task())
    assert case.polled("z1")[-1] == ["disk-1"]


async def test_pokes_are_coalesced_when_there_are_many(case: Case) -> None:
    task = a_task()
    await case.register(task)
    await case.advance(0.05)
    case.polls.clear()
    for _ in range(50):
        case.engine.poke("z1", task.uid)
    await case.engine.idle()
    await case.advance(0.05)
    assert case.polled("z1") == [["disk-1"]]


async def test_new_task_waits_for_the_rest_after_a_long_poll_and_is_told_so(case: Case) -> None:
    def long(_: Beat) -> Again:
        case.clock.advance(0.5)
        return Again()

    case.acts["z1"] = long
    first, second = a_task(id="first"), a_task(id="second")
    await case.register(first)
    await case.advance(0.05)
    assert case.polled("z1") == [["first"]]
    ended = case.clock.now()
    await case.register(second)
    due = case.engine.times(second).next_poll_at
    assert due is not None
    assert ended + 1.0 <= due <= ended + 10.0
    await case.advance(0.95)
    assert case.polled("z1") == [["first"]]
    await case.advance(due - case.clock.now() + 0.001)
    assert "second" in case.polled("z1")[1]


async def test_exception_of_a_poll_backs_the_zone_off_and_others_go_on(case: Case) -> None:
    def act(beat: Beat) -> Again:
        raise RuntimeError("broken")

    case.acts["z1"] = act
    for _ in range(12):
        await case.advance(10)
    assert len(case.polled("z2")) == 12
    assert 2 < len(case.polled("z1")) < 7


async def test_each_of_a_batch_is_counted_polled_and_expires_by_its_own_members(case: Case) -> None:
    mine, soon = a_task(id="mine"), case.clock.now() + 100.0
    other = {"owner": Owner(1, 1)}
    batch = [
        *(mine, a_task(id="often", poll_interval=1.0), a_task(id="short", deadline_at=soon), a_task(id="others", **other)),
        *(a_task(id="elsewhere", zone="z2"), a_task(id="copied", action="copy", **other), a_task(id="mine too")),
    ]
    await case.register(*batch)
    assert case.engine.tally() == {("z1", "backup", "queued"): 5, ("z2", "backup", "queued"): 1, ("z1", "copy", "queued"): 1}
    assert [case.engine.live_of(uid) for uid in (mine.owner.uid, 1)] == [5, 2]
    await case.advance(0.1)
    ids = sorted(task.id for task in batch)
    assert sorted({name for _, names, _ in case.polls for name in names}) == ids
    case.polls.clear()
    for _ in range(9):
        await case.advance(1)
    assert len([names for names in case.polled("z1") if "often" in names]) == 9
    assert len([names for names in case.polled("z1") if "mine" in names]) <= 1
    await case.advance(100)
    assert case.expired[:1] == ["short"]
    assert set(case.expired) == {"short"}
    assert [case.engine.get(task.uid) for task in batch if task.id != "short"] == [task for task in batch if task.id != "short"]


async def test_task_is_polled_at_its_own_interval_when_it_has_one(case: Case) -> None:
    await case.register(a_task(poll_interval=1.0), a_task(id="slow"))
    await case.advance(1)
    case.polls.clear()
    for _ in range(10):
        await case.advance(1)
    assert len([ids for ids in case.polled("z1") if "disk-1" in ids]) == 10
    assert len([ids for ids in case.polled("z1") if "slow" in ids]) == 1


async def test_times_tell_the_last_and_the_next_poll(case: Case) -> None:
    task = a_task()
    await case.register(task)
    await case.advance(0.05)
    times = case.engine.times(task)
    assert times.last_polled_at == pytest.approx(case.clock.now(), abs=0.06)
    assert times.next_poll_at is not None
    assert 0 < times.next_poll_at - case.clock.now() <= 10
    unknown = a_task(id="x", zone="gone")
    await case.register(unknown)
    assert case.engine.times(unknown).next_poll_at is None


async def test_pause_is_remembered_when_the_engine_is_reopened(case: Case) -> None:
    await case.engine.pause("z1", True)
    await case.reopen()
    case.polls.clear()
    await case.advance(30)
    assert case.engine.paused() == {"z1"}
    assert (len(case.polled("z1")), len(case.polled("z2"))) == (0, 1)
    await case.engine.pause("z1", False)
    await case.engine.idle()
    assert len(case.polled("z1")) == 1


async def test_ended_task_stays_in_the_batch_until_it_is_tidied(case: Case) -> None:
    task = a_task(tidy=False)
    await case.register(task)
    ended = await case.end(task)
    await case.advance(0.05)
    assert case.polled("z1")[-1] == ["disk-1"]
    await case.reopen()
    await case.advance(0.05)
    assert ["disk-1"] in case.polled("z1")[-2:]
    assert await case.engine.change([transitions.tidied(ended, case.clock.now())]) == [True]
    await case.advance(10)
    assert case.polled("z1")[-1] == []


# ---- deadlines


@pytest.mark.parametrize("zone", ["z1", "gone"])
async def test_f11_task_expires_by_wall_time_when_its_zone_is_paused_or_unknown(case: Case, zone: str) -> None:
    await case.engine.pause("z1", True)
    task = a_task(zone=zone, timeout=3600.0)
    await case.register(task)
    await case.advance(3599)
    assert case.expired == []
    case.clock.jump(1)
    await case.advance(5)
    assert case.expired == ["disk-1"]
    stored = await case.engine.load(task.uid)
    assert stored is not None
    assert stored.state is State.FAILED


async def test_f11_deadline_holds_when_the_engine_was_closed_meanwhile(case: Case) -> None:
    await case.register(a_task(timeout=60.0))
    await case.engine.close()
    case.clock.advance(61)
    await case.reopen() if case.kind == "memory" else await _open_anew(case)
    assert case.expired == ["disk-1"]


async def _open_anew(case: Case) -> None:
    case.engine = case._make()
    await case.open()


# ---- asking


async def test_find_filters_by_every_member_and_pages_by_key(case: Case) -> None:
    tasks = [a_task(id=f"d{n}", created_at=case.clock.now() + n) for n in range(5)]
    special = a_task(
        id="s",
        zone="z2",
        action="clone",
        region_task_id=7,
        labels={'a"b': "c"},
        owner=Owner(7, 7),
        created_at=case.clock.now() + 9,
    )
    await case.register(*tasks, special)
    await case.end(tasks[0])

    async def ids(**filters: object) -> list[str]:
        page = await case.engine.find(Query(**filters))  # type: ignore[arg-type]
        return [task.id for task in page.tasks]

    for filters in (
        {"zone": "z2"},
        {"action": "clone"},
        {"id": "s"},
        {"region_task_id": "7"},
        {"labels": (('a"b', "c"),)},
        {"owner_uid": 7},
        {"created_after": case.clock.now() + 5},
    ):
        assert await ids(**filters) == ["s"], filters
    assert await ids(done=True) == ["d0"]
    assert await ids(states=("succeeded", "running")) == ["d0"]
    assert await ids(done=False, zone="z1") == ["d4", "d3", "d2", "d1"]
    first = await case.engine.find(Query(limit=4))
    rest = await case.engine.find(Query(limit=4, before_uid=first.tasks[-1].uid))
    assert ([task.id for task in first.tasks], first.more) == (["s", "d4", "d3", "d2"], True)
    assert ([task.id for task in rest.tasks], rest.more) == (["d1", "d0"], False)
    assert rest.cursor == (await case.engine.events(0, 100))[-1].seq


async def test_find_shows_the_newest_progress_and_hides_deleted_ones(case: Case) -> None:
    task, gone = a_task(), a_task(id="gone")
    await case.register(task, gone)
    await case.engine.change([progress(task, misses=1)])
    ended = await case.end(gone)
    deleted = replace(progress(ended, deleted=True), save=True)
    assert await case.engine.change([deleted]) == [True]
    assert [found.misses for found in (await case.engine.find(Query())).tasks] == [1]
    stored = await case.engine.load(gone.uid)
    assert stored is not None
    assert stored.deleted


async def test_events_go_on_without_a_gap_when_the_engine_is_reopened(case: Case) -> None:
    task = a_task()
    await case.register(task)
    await case.reopen()
    await case.end(task)
    assert [event.seq for event in await case.engine.events(0, 10)] == [1, 2]
    assert [event.seq for event in await case.engine.events(1, 10)] == [2]
    assert [event.seq for event in await case.engine.events(0, 1)] == [1]


async def test_purge_takes_old_ones_and_those_beyond_the_newest_but_none_with_a_pending_delivery(case: Case) -> None:
    case.answers = case.down
    tasks = [a_task(id=f"d{n}") for n in range(4)]
    live = a_task(id="live")
    await case.register(*tasks, live)
    for task in tasks:
        await case.advance(100)
        await case.end(task, *([a_delivery(task)] if task is tasks[0] else []))
    assert await case.engine.purge(finished_before=case.clock.now() - 150, keep=100) == 1
    assert await case.engine.load(tasks[1].uid) is None
    assert await case.engine.purge(finished_before=0.0, keep=1) == 1
    left = {task.id for task in (await case.engine.find(Query())).tasks}
    assert left == {"d0", "d3", "live"}
    with pytest.raises(CursorExpired) as refused:
        await case.engine.events(1, 10)
    oldest = refused.value.extra["oldest"]
    retained = [tasks[0].uid, tasks[3].uid, live.uid, tasks[0].uid, tasks[3].uid]
    assert [event.uid for event in await case.engine.events(0, 10)] == retained, "0 is no cursor"
    assert [event.uid for event in await case.engine.events(oldest, 10)] == [tasks[3].uid]


async def test_key_may_be_used_anew_when_its_task_was_purged(case: Case) -> None:
    task = a_task()
    await case.engine.add([NewTask(task, "k", "one")])
    await case.end(task)
    assert await case.engine.purge(case.clock.now() + 1, keep=100) == 1
    (answer,) = await case.engine.add([NewTask(a_task(), "k", "other")])
    assert not answer.replayed


async def test_status_tells_counts_and_zones(case: Case) -> None:
    await case.register(a_task())
    status = case.engine.status()
    assert (status["live"], status["stuck"], status["salvage"], status["loading"]) == (1, [], None, False)
    assert set(status["zones"]) == {"z1", "z2"}
