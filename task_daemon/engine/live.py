"""The tasks that are live or have something left to clean up, in memory: what they are, how many, and whose time is up.

Not thread-safe but for `get`: the engine holds its lock around every other call. Every operation costs O(1) or, for
deadlines, O(log n); a task costs its packed bytes, a dictionary entry and a heap entry.
"""

import heapq
from collections import Counter
from collections.abc import Iterator

from msgspec.structs import replace

from task_daemon.core.model import Change, Task
from task_daemon.engine.packing import Packing, Version

EXPIRE_AGAIN = 5.0  # seconds until a task whose expiry changed nothing is handed out once more
_HEAP_SLACK = 1000  # entries of ended tasks the heap of deadlines may hold before it is made anew


def is_kept(task: Task) -> bool:
    """Whether a task belongs in memory."""
    return not task.done or not task.tidy


def newer(one: Task, other: Task | None) -> Task:
    """The later version of one task."""
    if other is None or (one.task_seq, one.revision) >= (other.task_seq, other.revision):
        return one
    return other


def after(task: Task, current: Task | Version | None) -> Task:
    """`task`, with a revision above the one shown so far: what is shown never goes back."""
    if current is None or task.revision > current.revision:
        return task
    return replace(task, revision=current.revision + 1)


def stepped(change: Change, current: Task | Version) -> Task:
    """The next version of a task for a change that is kept in memory; one that shows nothing keeps the revision."""
    if change.task.revision > change.before.revision:
        return after(change.task, current)
    return change.task if change.task.revision == current.revision else replace(change.task, revision=current.revision)


class LiveTasks:
    def __init__(self) -> None:
        self._packing = Packing()
        self._tasks: dict[str, bytes] = {}
        self._tally: Counter[tuple[str, str, str]] = Counter()
        self._owners: Counter[int] = Counter()
        self._unfinished = 0
        self._deadlines: list[tuple[float, str]] = []  # heap of (wall time, uid); ended tasks are skipped when they come up
        self._handed: list[tuple[float, str]] = []  # entries of the heap that were handed out ...
        self._handed_at = 0.0  # ... since this wall time
        self.dirty: set[str] = set()  # changed since they were last put on disk

    def __len__(self) -> int:
        return len(self._tasks)

    def __contains__(self, uid: str) -> bool:
        return uid in self._tasks

    def __iter__(self) -> Iterator[Task]:
        return (self._packing.unpack(uid, packed) for uid, packed in self._tasks.items())

    def get(self, uid: str) -> Task | None:
        """Any thread, without the lock: one look into a dictionary."""
        packed = self._tasks.get(uid)
        return None if packed is None else self._packing.unpack(uid, packed)

    def version(self, uid: str) -> Version | Task | None:
        """As much of a task as says which version it is; a tenth of the work of `get`."""
        packed = self._tasks.get(uid)
        return None if packed is None else self._packing.version(packed)

    def put(self, task: Task) -> Task | None:
        """Take in a new version; returns the one that was there. One that ended and is tidy leaves."""
        old = self.get(task.uid)
        if old is not None:
            self._count(old, -1)
            self.dirty.discard(task.uid)
        if not is_kept(task):
            self._tasks.pop(task.uid, None)
            return old
        self._count(task, 1)
        if old is None:
            heapq.heappush(self._deadlines, (task.deadline_at, task.uid))
        self._tasks[task.uid] = self._packing.pack(task)
        return old

    def swap(self, task: Task) -> None:
        """A new version of a task that changed in memory only: neither state, zone nor owner differ."""
        self._tasks[task.uid] = self._packing.pack(task)
        self.dirty.add(task.uid)

    def tally(self) -> dict[tuple[str, str, str], int]:
        return dict(self._tally)

    def live_of(self, owner_uid: int) -> int:
        return self._owners[owner_uid]

    def unfinished(self) -> int:
        return self._unfinished

    def next_deadline(self) -> float | None:
        """Wall time of the next deadline."""
        heap = self._deadlines
        if len(heap) > 2 * len(self._tasks) + _HEAP_SLACK:
            heap[:] = [(task.deadline_at, task.uid) for task in self if not task.done]
            heapq.heapify(heap)
        while heap and self._gone(heap[0][1]):
            heapq.heappop(heap)
        again = self._handed_at + EXPIRE_AGAIN if self._handed else None
        return min((at for at in (again, heap[0][0] if heap else None) if at is not None), default=None)

    def expired(self, now: float, limit: int) -> list[Task]:
        """Up to `limit` tasks whose deadline has passed; should that lead to nothing, they come up again later, or when their
        deadline comes if the wall clock was wrong and is set back."""
        if self._handed and not 0 <= now - self._handed_at < EXPIRE_AGAIN:
            for entry in self._handed:
                heapq.heappush(self._deadlines, entry)
            self._handed = []
        found: list[Task] = []
        heap = self._deadlines
        while len(found) < limit and heap and heap[0][0] <= now:
            entry = heapq.heappop(heap)
            task = self.get(entry[1])
            if task is None or task.done:
                continue
            if not self._handed:
                self._handed_at = now
            self._handed.append(entry)
            found.append(task)
        return found

    def _gone(self, uid: str) -> bool:
        task = self.get(uid)
        return task is None or task.done

    def _count(self, task: Task, step: int) -> None:
        if task.done:
            return
        group = (task.zone, task.action, task.state.value)
        self._tally[group] += step
        if not self._tally[group]:
            del self._tally[group]
        self._unfinished += step
        self._owners[task.owner.uid] += step
        if not self._owners[task.owner.uid]:
            del self._owners[task.owner.uid]
