"""Followers of the feed: gap-free, from memory as long as it reaches."""

import asyncio
from collections import deque
from contextlib import ExitStack
from typing import Any

import pytest

from task_daemon.clock import FakeClock
from task_daemon.core.model import Event, Progress, State
from task_daemon.core.ports import Watched
from task_daemon.tracking import feed as under_test
from task_daemon.tracking.feed import Feed, Follower
from tests.costs import Calls, counted
from tests.making import a_task
from tests.tracking.outside import turns


class Stored:
    """The part of an engine that a feed uses."""

    def __init__(self) -> None:
        self.watched = Watched()
        self.rows: list[Event] = []
        self.tasks: dict[str, Any] = {}
        self.reads = 0

    async def events(self, after: int, limit: int, uid: str | None = None) -> list[Event]:
        self.reads += 1
        return [row for row in self.rows if row.seq > after and uid in (None, row.uid)][:limit]

    def get(self, uid: str) -> Any:
        return self.tasks.get(uid)

    def commit(self, feed: Feed | None, *uids: str) -> None:
        """Events of these tasks; the feed hears of them if it is given."""
        events = [Event(uid, "task.running", 1.0, 1, seq=len(self.rows) + number) for number, uid in enumerate(uids, 1)]
        self.rows += events
        if feed is not None:
            feed.add([a_task(uid=uid) for uid in uids], events)


@pytest.fixture
def stored() -> Stored:
    return Stored()


@pytest.fixture
def feed(stored: Stored, clock: FakeClock) -> Feed:
    return Feed(stored, clock)  # type: ignore[arg-type]


async def seqs(follower: Follower, limit: int = 100) -> list[int]:
    return [event.seq for event in (await follower.next(0.0, limit))[0]]


async def test_the_first_look_is_into_the_store_and_the_next_ones_are_not(feed: Feed, stored: Stored) -> None:
    stored.commit(None, "a", "b")
    with feed.follow(0) as follower:
        assert await seqs(follower) == [1, 2]
        stored.commit(feed, "c")
        assert await seqs(follower) == [3]
        stored.commit(feed, "d", "e")
        assert (await seqs(follower, 1), await seqs(follower, 1), await seqs(follower)) == ([4], [5], [])

    assert stored.reads == 1


async def test_what_memory_does_not_hold_any_more_comes_from_the_store(
    feed: Feed, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "_recent", deque(maxlen=3))
    with feed.follow(0) as follower:
        assert await seqs(follower) == []
        stored.commit(feed, *"abcdefgh")
        found = [await seqs(follower, 2) for _ in range(5)]

    assert found == [[1, 2], [3, 4], [5, 6], [7, 8], []]
    assert stored.reads > 1


async def test_events_that_the_feed_did_not_hear_of_leave_no_gap(feed: Feed, stored: Stored) -> None:
    stored.commit(feed, "a")
    with feed.follow(0) as follower:
        assert await seqs(follower) == [1]
        stored.commit(None, "b")
        stored.commit(feed, "c")
        assert await seqs(follower) == [2, 3]


async def test_what_the_store_showed_before_the_feed_heard_of_it_is_not_shown_twice(feed: Feed, stored: Stored) -> None:
    stored.commit(feed, "a")
    stored.commit(None, "b")
    with feed.follow(0) as follower:
        assert await seqs(follower) == [1, 2]
        feed.add([a_task(uid="b")], stored.rows[1:])
        assert await seqs(follower) == []
        stored.commit(feed, "c")
        assert await seqs(follower) == [3]


async def test_a_follower_of_one_task_reads_the_store_again_only_behind_memory(
    feed: Feed, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "_recent", deque(maxlen=4))
    stored.commit(feed, "mine")
    with feed.follow(0, "mine") as follower:
        assert await seqs(follower) == [1]
        assert await seqs(follower) == []
        stored.commit(feed, *["other"] * 3)
        assert await seqs(follower) == []
        assert stored.reads == 1
        stored.commit(feed, *["other"] * 9, "mine")
        assert await seqs(follower) == [14]
        stored.commit(feed, "mine")
        assert await seqs(follower) == [15]

    assert stored.reads == 2


async def test_only_who_has_something_to_read_is_woken(feed: Feed, stored: Stored) -> None:
    stored.commit(feed, "a")
    with feed.follow(0, "a") as mine, feed.follow(0, "b") as other, feed.follow(0) as everything, feed.follow(100) as ahead:
        followers = {"mine": mine, "other": other, "everything": everything, "ahead": ahead}
        assert await seqs(mine) == [1]
        assert await seqs(everything) == [1]
        waiting = {name: asyncio.ensure_future(follower.next(60.0, 10)) for name, follower in followers.items()}
        await turns()
        stored.commit(feed, "a")
        assert [name for name, follower in followers.items() if follower._woken.is_set()] == ["mine", "everything"]
        await turns()
        assert [name for name, future in waiting.items() if future.done()] == ["mine", "everything"]
        stored.commit(feed, "b")
        assert [event.seq for event in (await waiting["other"])[0]] == [3]
        waiting["ahead"].cancel()
        await turns()
    assert (feed._of_task, feed._waiting) == ({}, {})


async def test_an_event_that_comes_while_a_follower_looks_wakes_it(feed: Feed, stored: Stored) -> None:
    class Slow:
        async def __call__(self, after: int, limit: int, uid: str | None = None) -> list[Event]:
            stored.commit(feed, "a")
            return []  # as it was a moment before

    with feed.follow(0) as follower, pytest.MonkeyPatch.context() as patched:
        patched.setattr(stored, "events", Slow())
        assert [event.seq for event in (await follower.next(60.0, 10))[0]] == [1]


async def test_hundreds_who_wait_for_later_events_cost_those_who_register_nothing(feed: Feed, stored: Stored) -> None:
    def heard() -> int:
        with counted(Calls()) as calls:
            stored.commit(feed, "a")
        return calls.made

    alone = heard()
    with ExitStack() as kept:
        followers = [kept.enter_context(feed.follow(1000)) for _ in range(500)]
        waiting = [asyncio.ensure_future(follower.next(60.0, 10)) for follower in followers]
        await turns()
        assert heard() <= alone + 20
        for future in waiting:
            future.cancel()
        await turns()


async def test_progress_is_that_of_now_and_of_live_tasks_only(feed: Feed, stored: Stored, clock: FakeClock) -> None:
    moved = [a_task(uid=name, progress=Progress(percent=10.0)) for name in ("a", "b", "gone")]
    with feed.follow(0, progress=True) as follower:
        feed.add(moved, ())
        stored.tasks = {
            "a": a_task(uid="a", progress=Progress(percent=20.0)),
            "b": a_task(uid="b", state=State.FAILED),
        }
        _, tasks = await follower.next(0.0, 10)
        assert [(task.uid, task.progress.percent) for task in tasks if task.progress] == [("a", 20.0)]
        feed.add(moved, ())
        assert (await follower.next(0.0, 10))[1] == []
        clock.advance(under_test.PROGRESS_EVERY)
        assert len((await follower.next(0.0, 10))[1]) == 1


async def test_the_progress_that_waits_for_a_slow_reader_is_bounded(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "MOVED", 5)
    with feed.follow(0, progress=True) as follower:
        for number in range(20):
            feed.add([a_task(uid=f"t{number}")], ())
        assert len(follower._moved) == 5


async def test_tasks_are_watched_as_long_as_somebody_wants_their_progress(feed: Feed, stored: Stored) -> None:
    watched = stored.watched
    feed.watch("a")
    with feed.follow(0, "a", progress=True), feed.follow(0, progress=True), feed.follow(0, progress=True), feed.follow(0):
        assert (watched, watched.everything) == ({"a"}, True)
    assert (watched, watched.everything) == ({"a"}, False)
    feed.unwatch("a")
    assert watched == set()
