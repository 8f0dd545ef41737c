"""The tasks that are live or have something left to clean up, in memory: what they are, how many, and whose time is up.

Not thread-safe but for `get`, `some`, `version` and `pack`: the engine holds its lock around every other call. Every operation
costs O(1); a task costs its packed bytes, a dictionary entry and one in a set of deadlines.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from msgspec.structs import replace

from task_daemon.core.model import FINAL, Change, State, Task
from task_daemon.engine.deadlines import Deadlines
from task_daemon.engine.packing import Packing, Version

K = TypeVar("K")


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
        self._tally: dict[tuple[str, str, State], int] = {}
        self._owners: dict[int, int] = {}
        self._unfinished = 0
        self._deadlines = Deadlines(self._deadline)
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

    def some(self, uids: Iterable[str]) -> list[Task]:
        """Those of the tasks that are there. Any thread, without the lock."""
        packed, unpack = self._tasks.get, self._packing.unpack
        return [unpack(uid, found) for uid in uids if (found := packed(uid)) is not None]

    def pack(self, task: Task) -> bytes:
        """What `add` keeps of it. Any thread, without the lock."""
        return self._packing.pack(task)

    def add(self, tasks: Sequence[Task], packed: Mapping[str, bytes]) -> None:
        """Take in new tasks of one zone, action, state, owner and deadline; some may be packed already."""
        first = tasks[0]
        self._count(first, first.state, len(tasks))
        self._deadlines.add_all([task.uid for task in tasks], first.deadline_at)
        for task in tasks:
            self._tasks[task.uid] = packed.get(task.uid) or self._packing.pack(task)

    def put(self, task: Task) -> Task | Version | None:
        """Take in a new version; returns the one that was there. One that ended and is tidy leaves."""
        old = self.version(task.uid)
        if old is None:
            if is_kept(task):
                self._take_in(task)
            return None
        self.dirty.discard(task.uid)
        if old.state is not task.state:
            self._count(task, old.state, -1)
            self._count(task, task.state, 1)
            if task.done:
                self._deadlines.drop(task.uid, task.deadline_at)
        if is_kept(task):
            self._tasks[task.uid] = self._packing.pack(task)
        else:
            del self._tasks[task.uid]
        return old

    def _take_in(self, task: Task) -> None:
        self._count(task, task.state, 1)
        if not task.done:
            self._deadlines.add(task.uid, task.deadline_at)
        self._tasks[task.uid] = self._packing.pack(task)

    def swap(self, change: Change) -> Task | None:
        """Take in a change that is kept in memory, in which neither state, zone nor owner differ; answers the version that is
        shown now. None if the task was not as `before`."""
        uid = change.task.uid
        current = self.version(uid)
        if current is None or current.task_seq != change.before.task_seq:
            return None
        task = stepped(change, current)
        self._tasks[uid] = self._packing.pack(task)
        self.dirty.add(uid)
        return task

    def tally(self) -> dict[tuple[str, str, str], int]:
        return {(zone, action, state.value): count for (zone, action, state), count in self._tally.items()}

    def live_of(self, owner_uid: int) -> int:
        return self._owners.get(owner_uid, 0)

    def unfinished(self) -> int:
        return self._unfinished

    def next_deadline(self) -> float | None:
        """Wall time at which `expired` has something to do."""
        return self._deadlines.next()

    def expired(self, now: float, limit: int) -> list[Task]:
        """Up to `limit` tasks whose deadline has passed; should that lead to nothing, they come up again later, or when their
        deadline comes if the wall clock was wrong and is set back."""
        return self.some(self._deadlines.due(now, limit))

    def _deadline(self, uid: str) -> float | None:
        version = self.version(uid)
        return None if version is None or version.done else version.deadline_at

    def _count(self, task: Task, state: State, step: int) -> None:
        if state in FINAL:
            return
        _step(self._tally, (task.zone, task.action, state), step)
        _step(self._owners, task.owner.uid, step)
        self._unfinished += step


def _step(counts: dict[K, int], key: K, step: int) -> None:
    count = counts.get(key, 0) + step
    if count:
        counts[key] = count
    else:
        del counts[key]
