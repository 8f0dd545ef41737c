"""The feed: what has happened, for whoever follows it. The newest events come from memory, older ones from the store.

Followers pull: nothing is kept for one that is slow but its cursor and the names of tasks whose progress it has not seen.
All methods belong to the event loop.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import TypeVar

from task_daemon.core.model import Event, Task
from task_daemon.core.ports import Clock, Engine

K = TypeVar("K")

RECENT = 2048  # events kept in memory
PROGRESS_EVERY = 1.0  # seconds between two looks at the progress of the tasks a follower sees: coalesced
PROGRESS_AT_ONCE = 500  # tasks in one such look
MOVED = 100_000  # tasks whose progress waits for one follower; that of more is left out, it is not durable


class Feed:
    """Events as they are committed, and the followers of them."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self.stopping = False
        self.followers: set[Follower] = set()
        self._engine = engine
        self._clock = clock
        self._recent: deque[Event] = deque(maxlen=RECENT)
        self._watching: Counter[str] = Counter()
        self._of_task: dict[str, set[Follower]] = {}  # so that hundreds who wait for other tasks cost nothing
        self._moved_too: set[Follower] = set()  # of all tasks, those who ask for progress
        self._waiting: dict[int, set[Follower]] = {}  # the others of all tasks, by cursor: many wait at the same one

    def follow(self, after: int, uid: str | None = None, progress: bool = False) -> "Follower":
        """Events above `after`, of one task or of all. To be used as a context manager, so that it ends."""
        return Follower(self, self._clock, after, uid, progress)

    @property
    def newest(self) -> int:
        """Sequence of the newest event in memory, 0 without one."""
        return self._recent[-1].seq if self._recent else 0

    def add(self, tasks: Sequence[Task], events: Sequence[Event]) -> None:
        """What was committed, or has moved in memory only (`Handlers.change` of the engine)."""
        recent, newest = self._recent, self.newest
        for event in events:
            if event.seq != newest + 1:
                recent.clear()  # never a gap within
            recent.append(event)
            newest = event.seq
        if not self.followers:
            return
        uids = {event.uid for event in events}
        live = [task.uid for task in tasks if not task.done]
        for uid in self._of_task.keys() & uids.union(live):
            for follower in self._of_task[uid]:
                follower.hear(uids, live)
        for follower in self._moved_too:
            follower.hear(uids, live)
        for cursor in [cursor for cursor in self._waiting if cursor < newest]:
            for follower in self._waiting.pop(cursor):
                follower.wake()

    def stop(self) -> None:
        """The daemon is stopping: every follower ends."""
        self.stopping = True
        for follower in self.followers:
            follower.wake()

    def watch(self, uid: str) -> None:
        """What the task does in memory only is told from now on, until as many calls of `unwatch`."""
        self._watching[uid] += 1
        self._engine.watched.add(uid)

    def unwatch(self, uid: str) -> None:
        self._watching[uid] -= 1
        if not self._watching[uid]:
            del self._watching[uid]
            self._engine.watched.discard(uid)

    def begin(self, follower: "Follower") -> None:
        self.followers.add(follower)
        if follower.uid is not None:
            self._of_task.setdefault(follower.uid, set()).add(follower)
        elif follower.progress:
            self._moved_too.add(follower)
        if follower.progress:
            self._watch_for(follower)

    def end(self, follower: "Follower") -> None:
        self.followers.discard(follower)
        self._moved_too.discard(follower)
        if follower.uid is not None:
            _leave(self._of_task, follower.uid, follower)
        if not follower.progress:
            return
        if follower.uid is not None:
            self.unwatch(follower.uid)
        else:
            self._engine.watched.everything = bool(self._moved_too)

    def wait(self, follower: "Follower", cursor: int) -> None:
        """Wake it with the next event above its cursor; once, or until `wait_no_more`."""
        if follower.uid is None and not follower.progress:
            self._waiting.setdefault(cursor, set()).add(follower)

    def wait_no_more(self, follower: "Follower", cursor: int) -> None:
        _leave(self._waiting, cursor, follower)

    def _watch_for(self, follower: "Follower") -> None:
        if follower.uid is not None:
            self.watch(follower.uid)
        else:
            self._engine.watched.everything = True

    def recent(self, after: int, limit: int, uid: str | None) -> list[Event] | None:
        """Events above `after` from memory; None if some of them may be only in the store."""
        recent = self._recent
        if not recent or after < recent[0].seq - 1:
            return None
        found = (recent[place] for place in range(after - recent[0].seq + 1, len(recent)))
        return list(islice((event for event in found if uid in (None, event.uid)), limit))

    async def stored(self, after: int, limit: int, uid: str | None) -> list[Event]:
        """Raises CursorExpired."""
        return await self._engine.events(after, limit, uid)

    def moving(self, uids: Iterable[str]) -> list[Task]:
        """Those of the tasks that are live, as they are now."""
        tasks = (self._engine.get(uid) for uid in uids)
        return [task for task in tasks if task is not None and not task.done and task.progress is not None]


class Follower:
    """One reader of the feed, at its cursor."""

    def __init__(self, feed: Feed, clock: Clock, after: int, uid: str | None, progress: bool) -> None:
        self.uid = uid
        self.progress = progress
        self.cursor = after
        """Sequence of the last event that was handed out."""
        self._feed = feed
        self._clock = clock
        self._seen = -1  # there is nothing to hand out up to this sequence; -1: the store was not looked into yet
        self._moved: set[str] = set()
        self._look_at = 0.0  # monotonic; not before it is progress handed out again
        self._woken = asyncio.Event()

    def __enter__(self) -> "Follower":
        self._feed.begin(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._feed.end(self)

    @property
    def stopped(self) -> bool:
        return self._feed.stopping

    def hear(self, uids: set[str], live: Sequence[str]) -> None:
        """Of these tasks there are events, those have moved."""
        if self.progress:
            mine = live if self.uid is None else [uid for uid in live if uid == self.uid]
            self._moved.update(islice(mine, max(0, MOVED - len(self._moved))))
        news = uids and (self.uid is None or self.uid in uids) and self._feed.newest > self.cursor
        if self._moved or news:
            self._woken.set()

    def wake(self) -> None:
        self._woken.set()

    async def next(self, seconds: float, limit: int) -> tuple[list[Event], list[Task]]:
        """The next events, at most `limit`, and the tasks that have moved; neither when `seconds` are over without any, or
        when the daemon is stopping. Raises CursorExpired."""
        end, cursor = self._clock.monotonic() + seconds, self.cursor
        try:
            while True:
                self._woken.clear()  # before the look: what happens after it wakes us
                self._feed.wait(self, cursor)
                events = await self._events(limit)
                now = self._clock.monotonic()
                tasks = self._progress(now)
                if events or tasks or self.stopped or now >= end:
                    return events, tasks
                await self._clock.sleep(min(end, self._look_at) if self._moved else end, self._woken)
        finally:
            self._feed.wait_no_more(self, cursor)

    async def _events(self, limit: int) -> list[Event]:
        """The first look goes to the store: a task can be seen to have ended a moment before the loop hears of it."""
        after, newest = max(self.cursor, self._seen), self._feed.newest
        events = None if self._seen < 0 else self._feed.recent(after, limit, self.uid)
        if events is None:
            events = await self._feed.stored(after, limit, self.uid)
        if events:
            self.cursor = self._seen = events[-1].seq
        else:
            self._seen = max(after, newest)
        return events

    def _progress(self, now: float) -> list[Task]:
        if not self._moved or now < self._look_at:
            return []
        chosen = list(islice(self._moved, PROGRESS_AT_ONCE))
        self._moved.difference_update(chosen)
        if not self._moved:
            self._look_at = now + PROGRESS_EVERY
        return self._feed.moving(chosen)


def _leave(groups: dict[K, set[Follower]], key: K, follower: Follower) -> None:
    """Take it out of its group, if it is there; an empty group goes, too."""
    group = groups.get(key)
    if group is not None:
        group.discard(follower)
        if not group:
            del groups[key]
