"""Whose time is up, by wall time. Pure: times come in as numbers.

Tasks wait in buckets of a minute, which cost a few bytes each; a bucket is opened when its minute has begun, a piece at a time,
and only then is each of its tasks looked at and put in exact order. So nothing comes up before its deadline.
"""

import heapq
from collections.abc import Callable, Collection

EXPIRE_AGAIN = 5.0  # seconds until a task whose expiry changed nothing is handed out once more
MINUTE = 60.0


class Deadlines:
    """`of`: a task's deadline; None if it has ended or is gone."""

    def __init__(self, of: Callable[[str], float | None]) -> None:
        self._of = of
        self._buckets: dict[int, set[str]] = {}
        self._minutes: list[int] = []  # heap; one may have no bucket any more
        self._opened: list[tuple[float, str]] = []  # heap of those whose minute had begun; ended tasks are skipped
        self._handed: list[tuple[float, str]] = []  # entries that were handed out ...
        self._handed_at = 0.0  # ... since this wall time

    def add(self, uid: str, at: float) -> None:
        self.add_all((uid,), at)

    def add_all(self, uids: Collection[str], at: float) -> None:
        minute = int(at // MINUTE)
        bucket = self._buckets.get(minute)
        if bucket is None:
            bucket = self._buckets[minute] = set()
            heapq.heappush(self._minutes, minute)
        bucket.update(uids)

    def drop(self, uid: str, at: float) -> None:
        """The task has ended."""
        minute = int(at // MINUTE)
        bucket = self._buckets.get(minute)
        if bucket is not None:
            bucket.discard(uid)
            if not bucket:
                del self._buckets[minute]

    def next(self) -> float | None:
        """Wall time at which `due` has something to do: a deadline, or a minute that begins."""
        while self._opened and self._of(self._opened[0][1]) is None:
            heapq.heappop(self._opened)
        while self._minutes and self._minutes[0] not in self._buckets:
            heapq.heappop(self._minutes)
        times = [self._handed_at + EXPIRE_AGAIN] if self._handed else []
        times += [self._opened[0][0]] if self._opened else []
        times += [self._minutes[0] * MINUTE] if self._minutes else []
        return min(times, default=None)

    def due(self, now: float, limit: int) -> list[str]:
        """Up to `limit` tasks whose deadline has passed; should that lead to nothing, they come up again later, or when their
        deadline comes if the wall clock was wrong and is set back."""
        if self._handed and not 0 <= now - self._handed_at < EXPIRE_AGAIN:
            for entry in self._handed:
                heapq.heappush(self._opened, entry)
            self._handed = []
        self._open(now, limit)
        found: list[str] = []
        while len(found) < limit and self._opened and self._opened[0][0] <= now:
            entry = heapq.heappop(self._opened)
            if self._of(entry[1]) is None:
                continue
            if not self._handed:
                self._handed_at = now
            self._handed.append(entry)
            found.append(entry[1])
        return found

    def _open(self, now: float, limit: int) -> None:
        """Put up to `limit` tasks whose minute has begun in exact order."""
        while limit > 0 and self._minutes and self._minutes[0] * MINUTE <= now:
            bucket = self._buckets.get(self._minutes[0])
            while bucket and limit > 0:
                uid = bucket.pop()
                at = self._of(uid)
                if at is not None:
                    heapq.heappush(self._opened, (at, uid))
                limit -= 1
            if not bucket:
                self._buckets.pop(heapq.heappop(self._minutes), None)
