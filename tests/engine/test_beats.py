"""Timing without an engine: what the contract suite cannot see from outside."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from task_daemon.core.ports import Again, Idle
from task_daemon.engine.beats import NEW_AT_ONCE, POKE_GAP, Beats


def poll_in_order(beats: Beats, zone: str, now: float, outcome: Again | None = None) -> list[str]:
    token = beats.start(zone, now, now)
    assert token is not None
    uids = beats.uids(zone, token)
    beats.finish(zone, token, outcome or Again(), now)
    return uids


def poll(beats: Beats, zone: str, now: float, outcome: Again | None = None) -> list[str]:
    return sorted(poll_in_order(beats, zone, now, outcome))


@given(st.text(min_size=1), st.floats(0.1, 3600), st.floats(0, 1e7))
def test_next_poll_is_later_and_within_an_interval_when_one_has_run(zone: str, interval: float, start: float) -> None:
    beats = Beats()
    beats.configure(zone, interval, start)
    now = start
    for _ in range(20):
        assert beats.due(now) == [zone]
        poll(beats, zone, now)
        due = beats.next_due()
        assert now < due <= now + interval * 1.001
        now = due


def test_zone_that_is_polled_is_not_due_again_until_it_is_finished() -> None:
    beats = Beats()
    beats.configure("z", 1.0, 0.0)
    assert beats.due(0.0) == ["z"]
    assert beats.start("z", 0.0, 0.0) == 1
    beats.poke("z")
    assert beats.due(100.0) == []


def test_stuck_poll_writes_nothing_and_its_tasks_are_due_when_it_returns() -> None:
    beats = Beats()
    beats.configure("z", 1.0, 0.0)
    beats.add("z", "a", None, 0.0)
    beats.due(0.0)
    token = beats.start("z", 0.0, 0.0)
    assert token is not None
    beats.strand("z", 60.0)
    assert not beats.is_newest("z", token)
    assert beats.uids("z", token) == []
    beats.finish("z", token, Again(), 61.0)
    assert beats.due(1000.0) == []
    beats.release("z")
    assert beats.due(1000.0) == ["z"]
    assert poll(beats, "z", 1000.0) == ["a"]


def test_poll_does_not_start_when_its_thread_was_given_up_before() -> None:
    beats = Beats()
    beats.configure("z", 1.0, 0.0)
    beats.due(0.0)
    beats.strand("z", 60.0)
    assert beats.start("z", 60.0, 60.0) is None
    beats.release("z")
    assert beats.due(60.0) == ["z"]


def test_poke_of_a_zone_takes_all_its_tasks() -> None:
    beats = Beats()
    beats.configure("z", 10.0, 0.0)
    for uid in "ab":
        beats.add("z", uid, None, 0.0)
    beats.due(0.0)
    assert poll(beats, "z", 0.0) == ["a", "b"]
    beats.poke("z", "a")
    assert beats.due(0.049) == []
    assert beats.due(0.05) == ["z"]
    assert poll(beats, "z", 0.05) == ["a"]
    beats.poke("z")
    assert beats.due(0.1) == ["z"]
    assert poll(beats, "z", 0.1) == ["a", "b"]


def polled_for(beats: Beats, zone: str, begin: float, seconds: float, waited: float = 0.0, gave_way: float = 0.0) -> float:
    """One poll of this length, of which the backend took `waited` and others `gave_way`; answers when it ended."""
    token = beats.start(zone, begin, begin)
    assert token is not None
    beats.finish(zone, token, Again(), begin + seconds, waited, gave_way)
    return begin + seconds


def test_poll_that_was_asked_for_rests_after_a_long_one_and_the_grid_does_not() -> None:
    beats = Beats()
    beats.configure("z", 10.0, 0.0)
    beats.add("z", "a", None, 0.0)
    beats.due(0.0)
    ended = polled_for(beats, "z", 0.0, 0.1)
    grid = beats.next_due()
    beats.add("z", "b", None, ended)

    rested = ended + 30 * 0.1
    assert ended < rested < grid <= 10.0
    assert beats.next_due() == rested
    assert beats.times("z", "b", None, ended, ended, ended).next_poll_at == pytest.approx(rested)
    assert beats.due(rested - 0.001) == []
    assert beats.due(rested) == ["z"]


def test_nothing_rests_for_the_time_in_which_a_poll_gave_way() -> None:
    beats = Beats()
    beats.configure("z", 10.0, 0.0)
    beats.add("z", "a", None, 0.0)
    beats.due(0.0)
    ended = polled_for(beats, "z", 0.0, 0.12, gave_way=0.1)
    beats.add("z", "b", None, ended)
    assert beats.next_due() == pytest.approx(ended + 30 * 0.02)


def test_poll_that_was_poked_rests_for_a_tenth_of_what_one_for_new_tasks_does() -> None:
    beats = Beats()
    beats.configure("z", 10.0, 0.0)
    beats.add("z", "a", None, 0.0)
    beats.due(0.0)
    ended = polled_for(beats, "z", 0.0, 0.1)
    beats.add("z", "b", None, ended)
    beats.poke("z", "a")
    assert beats.next_due() == ended + 3 * 0.1


@pytest.mark.parametrize(("new", "rest"), [(True, 30 * 0.05 + 2 * 0.1), (False, 3 * 0.05 + 2 * 0.1)])
def test_what_the_backend_took_is_rested_for_less_than_our_own_work(new: bool, rest: float) -> None:
    beats = Beats()
    beats.configure("z", 10.0, 0.0)
    beats.add("z", "a", None, 0.0)
    beats.due(0.0)
    ended = polled_for(beats, "z", 0.0, 0.15, waited=0.1)
    if new:
        beats.add("z", "b", None, ended)
    else:
        beats.poke("z", "a")
    assert beats.next_due() == pytest.approx(ended + rest)
    assert beats.times("z", "b" if new else "a", None, 0.0, ended, ended).next_poll_at == pytest.approx(ended + rest)


def test_crowd_of_new_tasks_is_polled_in_parts_first_come_first_and_whole_with_the_grid() -> None:
    beats = Beats()
    beats.configure("z", 10.0, 0.0)
    beats.due(0.0)
    polled_for(beats, "z", 0.0, 0.0)
    uids = [f"{number:04}" for number in range(3000)]
    for uid in uids:
        beats.add("z", uid, None, 0.0)
    grid = beats.times("z", uids[-1], None, 0.0, 0.0, 0.0).next_poll_at
    assert grid is not None
    assert grid > POKE_GAP, "not the next: nobody knows when it will be its turn"
    now = beats.next_due()
    assert now == POKE_GAP
    beats.due(now)
    assert poll(beats, "z", now) == uids[:1000]
    beats.poke("z", uids[0])
    beats.drop("z", uids[1000], None)
    beats.due(now + POKE_GAP)
    assert poll(beats, "z", now + POKE_GAP) == [uids[0], *uids[1001:2001]]

    beats.due(grid)
    assert poll(beats, "z", grid) == sorted({*uids} - {uids[1000]}), "the grid leaves nobody out"
    assert beats.next_due() == pytest.approx(grid + 10.0), "nobody is new any more"


def test_tasks_are_polled_in_the_order_they_came_whoever_of_them_is_new_poked_or_gone() -> None:
    beats = Beats()
    beats.configure("z", 10.0, 0.0)
    beats.due(0.0)
    polled_for(beats, "z", 0.0, 0.0)
    uids = [f"{number * 7919 % 2000:04}" for number in range(2000)]
    beats.add_all("z", uids[:1500], None, 0.0)

    def polled(now: float) -> list[str]:
        assert beats.due(now) == ["z"]
        return poll_in_order(beats, "z", now)

    assert polled(POKE_GAP) == uids[:1000]
    beats.add_all("z", uids[1500:], None, 0.1)
    beats.drop("z", uids[3], None)
    for uid in uids[20:4:-1]:
        beats.poke("z", uid)
    assert polled(beats.next_due()) == [*uids[20:4:-1], *uids[1000:]], "new ones after those that were asked for"
    beats.poke("z", uids[7])
    grid = beats.times("z", uids[0], None, 0.0, 0.1, 0.1).next_poll_at
    assert grid is not None
    assert polled(grid) == [*uids[:3], *uids[4:]]


def test_no_poll_rests_for_longer_than_the_longest_rest_or_beyond_the_grid() -> None:
    beats = Beats()
    beats.configure("slow", 3600.0, 0.0)
    beats.configure("quick", 2.0, 0.0)
    beats.due(0.0)
    for zone, rests in (("slow", 5.0), ("quick", 2.0)):
        ended = polled_for(beats, zone, 0.0, 30.0)
        beats.add(zone, "a", None, ended)
        due = beats.times(zone, "a", None, ended, ended, ended).next_poll_at
        assert due is not None
        assert due <= ended + rests


def test_polls_that_are_asked_for_without_end_leave_most_of_the_time_to_others() -> None:
    beats = Beats()
    beats.configure("z", 3600.0, 0.0)
    beats.due(0.0)
    now, polling = polled_for(beats, "z", 0.0, 0.001), 0.0
    for number in range(1000):
        beats.add("z", str(number), None, now)
        begin = beats.next_due()
        beats.due(begin)
        length = (begin - now) * 2  # each task that came meanwhile costs more than there is time for
        now, polling = polled_for(beats, "z", begin, min(length, 0.15)), polling + min(length, 0.15)

    assert 0 < polling <= now / 31 * 1.01


def test_task_that_comes_during_a_poll_is_told_no_time_before_that_has_ended_and_rested() -> None:
    beats = Beats()
    beats.configure("z", 60.0, 0.0)
    beats.due(0.0)
    assert beats.start("z", 0.0, 0.0) == 1
    beats.add("z", "a", None, 0.0)
    assert beats.times("z", "a", None, 0.0, 0.001, 0.001).next_poll_at == POKE_GAP
    assert beats.times("z", "a", None, 0.0, 0.5, 0.5).next_poll_at == 0.5 + 2 * 0.5, (
        "at the earliest: the backend may have taken all of it"
    )


def waiting(beats: Beats) -> None:
    """Nothing was asked for; the zone's next poll is that of the grid."""


def resting(beats: Beats) -> None:
    beats.add("z", "before", None, 0.0)
    beats.due(0.1)
    token = beats.start("z", 0.1, 0.1)
    assert token is not None
    beats.finish("z", token, Again(), 0.9)


def running(beats: Beats) -> None:
    beats.due(0.8)
    assert beats.start("z", 0.8, 0.8) is not None


def backing_off(beats: Beats) -> None:
    beats.due(0.8)
    token = beats.start("z", 0.8, 0.8)
    assert token is not None
    beats.failed("z", token, 0.9)


def idle(beats: Beats) -> None:
    beats.due(0.8)
    token = beats.start("z", 0.8, 0.8)
    assert token is not None
    beats.finish("z", token, Idle(), 0.9)


def paused(beats: Beats) -> None:
    beats.pause("z", True)


def crowded(beats: Beats) -> None:
    for number in range(NEW_AT_ONCE - 2):
        beats.add("z", f"before {number}", None, 0.5)


@pytest.mark.parametrize("among", [1, 2, 3])
@pytest.mark.parametrize("interval", [None, 3.0])
@pytest.mark.parametrize("spread", [False, True])
@pytest.mark.parametrize("so_far", [waiting, resting, running, backing_off, idle, paused, crowded])
def test_first_poll_is_told_before_a_task_is_added_as_after_it(
    so_far: Callable[[Beats], None], spread: bool, interval: float | None, among: int
) -> None:
    beats = Beats()
    beats.configure("z", 60.0, 0.0, spread=spread)
    so_far(beats)
    uids = [f"new {number}" for number in range(among)]
    before = [beats.first_poll("z", uid, interval, among, 1.0, 1001.0) for uid in uids]
    for uid in uids:
        beats.add("z", uid, interval, 1.0)

    assert before == [beats.times("z", uid, interval, 1001.0, 1.0, 1001.0).next_poll_at for uid in uids]
    assert (before[0] is None) == (so_far is paused)
    assert beats.first_poll("unknown", "new", None, 1, 1.0, 1001.0) is None


def test_resumed_zone_is_polled_at_once_when_its_last_poll_was_long() -> None:
    beats = Beats()
    beats.configure("z", 60.0, 0.0)
    beats.due(0.0)
    ended = polled_for(beats, "z", 0.0, 1.0)
    beats.pause("z", True)
    beats.pause("z", False)
    assert beats.due(ended) == ["z"]


def test_dropped_task_is_not_polled_when_it_was_taken_before() -> None:
    beats = Beats()
    beats.configure("z", 10.0, 0.0)
    beats.add("z", "a", 3.0, 0.0)
    beats.due(0.0)
    token = beats.start("z", 0.0, 0.0)
    assert token is not None
    beats.drop("z", "a", 3.0)
    assert beats.uids("z", token) == []
    beats.finish("z", token, Again(1.0), 0.0)
    beats.due(1.0)
    assert poll(beats, "z", 1.0) == []


def test_tasks_come_up_one_after_the_other_at_the_same_points_of_each_interval_when_they_are_spread() -> None:
    beats = Beats()
    beats.configure("z", 10.0, 0.0, spread=True)
    uids = {f"task-{n}" for n in range(1000)}
    for uid in uids:
        beats.add("z", uid, None, 0.0)
    beats.due(0.0)
    assert poll(beats, "z", 0.0) == sorted(uids)  # all are new
    seen: dict[str, list[float]] = {uid: [] for uid in uids}
    sizes = []
    while (now := beats.next_due()) <= 30.0:
        assert beats.due(now) == ["z"]
        due = poll(beats, "z", now)
        sizes.append(len(due))
        for uid in due:
            seen[uid].append(now)

    assert all(times == pytest.approx([times[0], times[0] + 10, times[0] + 20]) for times in seen.values())
    assert len(set(sizes)) > 1
    assert max(sizes) <= 30  # of 10 on average


def test_spread_task_is_said_to_be_polled_when_it_is() -> None:
    beats = Beats()
    beats.configure("z", 10.0, 0.0, spread=True)
    beats.add("z", "a", None, 0.0)
    beats.due(0.0)
    poll(beats, "z", 0.0)
    told = beats.times("z", "a", None, 0.0, 0.0, 0.0).next_poll_at
    assert told is not None
    polled = []
    while (now := beats.next_due()) <= 20.0:
        beats.due(now)
        polled += [now] * len(poll(beats, "z", now))

    assert polled[0] == pytest.approx(told)


def test_slot_is_gone_when_its_last_task_has_ended() -> None:
    beats = Beats()
    beats.configure("z", 10.0, 0.0, spread=True)
    beats.add("z", "a", None, 0.0)
    beats.due(0.0)
    poll(beats, "z", 0.0)
    beats.drop("z", "a", None)
    for _ in range(3):
        now = beats.next_due()
        beats.due(now)
        poll(beats, "z", now)

    assert len(beats._zones["z"].groups) == 1
