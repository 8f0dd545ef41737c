"""Brings the live tasks from the disk into memory at the start, and their progress from memory to the disk."""

import logging
from collections.abc import Callable, Sequence
from functools import partial

from msgspec.structs import replace

from task_daemon.core import crash
from task_daemon.core.errors import Refusal
from task_daemon.core.model import Task
from task_daemon.engine.live import newer
from task_daemon.engine.local.ledger import Ledger
from task_daemon.engine.local.reading import Position, Reading
from task_daemon.engine.local.rows import Row, saved_row
from task_daemon.engine.local.store import Store
from task_daemon.engine.local.tables import Tables

log = logging.getLogger("task_daemon.engine")

LOAD_CHUNK = 1000  # tasks; a few milliseconds of the reader thread and of the ledger's lock
REVISIONS_SKIPPED = 1000  # after an unclean stop: since the last checkpoint less progress than this was shown of one task


class Keeper:
    def __init__(self, store: Store, ledger: Ledger) -> None:
        self._store = store
        self._ledger = ledger
        self._live = ledger.live
        self._lock = ledger.lock
        self._skipped = 0

    @property
    def loading(self) -> bool:
        return self._ledger.touched is not None

    async def begin(self) -> None:
        """Mark the store as in use; see whether the last stop was clean."""
        self._skipped = await self._store.write(_begin) * REVISIONS_SKIPPED

    async def end(self) -> None:
        """Mark the stop as clean. If not all tasks were loaded, the next start skips their revisions instead."""
        raised = not self.loading
        await self._store.write(lambda tables: _end(tables, raised))

    def newest(self, task: Task) -> Task:
        """A task as it was read, or as memory has it if that is newer."""
        current = self._live.get(task.uid)
        touched = self._ledger.touched
        if current is None and touched is not None and not task.done and task.uid not in touched:
            return replace(task, revision=task.revision + self._skipped)
        return newer(task, current)

    async def load(self, some: Callable[[], None]) -> None:
        """Take in what is stored, zone by zone, while polls and registrations go on; `some` is called after each chunk."""
        place: Position | None = ("", 0)
        while place is not None:
            place = await self._store.read(partial(self._load_live, place))
            some()
        last: int | None = 0
        while last is not None:
            last = await self._store.read(partial(self._load_untidy, last))
            some()
        self._ledger.touched = None
        log.info("took in %d stored tasks", len(self._live))
        if self._skipped:
            await self.save(LOAD_CHUNK)
            await self._store.write(lambda tables: tables.set_meta("unclean", "0"))

    async def save(self, chunk: int) -> None:
        """Put every task that is dirty now on disk, `chunk` in a commit; what becomes dirty meanwhile is for the next time.

        Raises what the store raises; the tasks are dirty again then.
        """
        with self._lock:
            dirty = list(self._live.dirty)
            self._live.dirty.clear()
        dirty.sort()  # in the order of the table: neighbours share its pages
        start = 0
        try:
            rows = await self._rows(dirty[:chunk])
            while start < len(dirty):
                writing = self._store.write(_saving(rows))
                rows = await self._rows(dirty[start + chunk : start + 2 * chunk])  # on its thread, while the writer writes
                await writing
                crash.reach("checkpoint.between")
                start += chunk
        except Refusal:
            with self._lock:
                self._live.dirty.update(uid for uid in dirty[start:] if uid in self._live)
            raise

    async def _rows(self, uids: Sequence[str]) -> list[Row]:
        if not uids:
            return []
        return await self._store.read(lambda _: [saved_row(task) for uid in uids if (task := self._live.get(uid)) is not None])

    def _load_live(self, after: Position, look: Reading) -> Position | None:
        """Reader thread. The place of the last task of the next chunk, None when there are no more."""
        tasks, place = look.live(after, LOAD_CHUNK)
        self._take_in(tasks)
        return place

    def _load_untidy(self, after: int, look: Reading) -> int | None:
        tasks, last = look.untidy(after, LOAD_CHUNK)
        self._take_in(tasks)
        return last

    def _take_in(self, tasks: Sequence[Task]) -> None:
        with self._lock:
            for task in tasks:
                if self._ledger.touched is not None and task.uid in self._ledger.touched:
                    continue
                if not self._skipped:
                    self._ledger.keep(task)
                    continue
                # it may have been seen since its misses were put on disk, and a row of misses must have no gap
                self._ledger.keep(replace(task, revision=task.revision + self._skipped, misses=0))
                self._live.dirty.add(task.uid)


def _saving(rows: Sequence[Row]) -> Callable[[Tables], None]:
    return lambda tables: tables.save(rows)


def _begin(tables: Tables) -> int:
    """How many unclean stops there were in a row whose skipped revisions are not on disk yet."""
    unclean = int(tables.meta("unclean") or 0) + (tables.meta("clean") == "0")
    tables.set_meta("unclean", str(unclean))
    tables.set_meta("clean", "0")
    return unclean


def _end(tables: Tables, raised: bool) -> None:
    if raised:
        tables.set_meta("unclean", "0")
    tables.set_meta("clean", "1")
