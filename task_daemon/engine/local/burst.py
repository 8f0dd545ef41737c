"""When a registration is committed by the event loop itself, and when by the store's thread.

A change of threads and back costs more than the flush of a quick disk. Somebody who registers one task after the other, each
after the answer to the one before, pays for both each time, and nobody gains by it. So in the middle of such a burst the loop
commits. It stands still for as long as that takes, which is why all of this has to hold: the last commits of registrations were
quick, each was for one of them with nothing else under way, and the last one has only just ended. Whoever registers now and then
or on a slow disk is never served so, and of several that come in one turn of the loop only the first; one slow commit ends the
burst. A disk that begins to hang in the middle of it holds the loop up until it goes on (the watchdog sees that). Two things that
may take long on any disk are left to the thread: taking the WAL into the store, and waiting for another program that has locked
it.
"""

import sqlite3

BEGINS_AFTER = 4  # commits in a row
QUICK = 0.001  # seconds a commit takes
JUST_NOW = 0.005  # seconds since the last one
MOST = 250  # commits of the loop until the thread makes one, which takes a WAL that has grown into the store


class Burst:
    """`checkpoint`: pages of WAL; `busy_timeout`: seconds. Both are what the connection has while the thread commits."""

    def __init__(self, connection: sqlite3.Connection, checkpoint: int, busy_timeout: float) -> None:
        self._connection = connection
        self._settings = checkpoint, round(busy_timeout * 1000)
        self._alone = 0  # commits of registrations in a row that were quick, and for one each
        self._last = 0.0
        self._here = 0  # commits of the loop since the last one of the thread

    def goes_on(self, now: float) -> bool:
        """Whether the loop may commit. `now`: of `time.perf_counter`."""
        return self._alone >= BEGINS_AFTER and self._here < MOST and now - self._last < JUST_NOW

    @property
    def is_near(self) -> bool:
        """Whether it begins with the next commit, or has begun."""
        return self._alone >= BEGINS_AFTER - 1

    def begin(self) -> None:
        """The loop commits next; `end`: the thread does."""
        self._here += 1
        if self._here == 1:
            self._set(0, 0)

    def end(self) -> None:
        if self._here:
            self._set(*self._settings)
        self._here = 0

    def count_group(self, registering: int, operations: int, under_way: int, took: float, now: float) -> None:
        """A commit of the thread has ended, for so many operations, of which some were registrations. What polls write takes
        longer and says nothing of who registers, unless the disk has become slow."""
        if registering == operations or registering > 1 or took >= JUST_NOW:
            self.count(registering == under_way == 1, took, now)

    def count(self, alone: bool, took: float, now: float) -> None:
        """A commit of registrations has ended. `alone`: it was for one, with nothing else under way."""
        self._alone = self._alone + 1 if alone and took < QUICK else 0
        self._last = now

    def _set(self, checkpoint: int, busy_timeout: int) -> None:
        self._connection.execute(f"PRAGMA wal_autocheckpoint = {checkpoint}").fetchall()
        self._connection.execute(f"PRAGMA busy_timeout = {busy_timeout}").fetchall()
