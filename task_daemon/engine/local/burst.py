"""When registrations are committed by the event loop itself, and when by the store's thread.

A change of threads and back costs more than the flush of a quick disk, and while both threads have something to do, each hands
the interpreter lock to the other with every statement and waits for it. Who registers one task after the other, each after the
answer to the one before, pays for all that each time, alone or beside others, and nobody gains by it. So in the middle of such a
burst the loop commits what came in one of its turns, in one commit; who is alone does not even wait for the end of the turn.

The loop stands still for as long as that takes, which is why all of this has to hold: the last commits of registrations were
quick, the last one has only just ended, and nothing is under way but some registrations of one task each. Whoever registers now
and then or on a slow disk is never served so; one slow commit ends the burst. A disk that begins to hang in the middle of it
holds the loop up until it goes on (the watchdog sees that). Two things that may take long on any disk are left to the thread:
taking the WAL into the store, and waiting for another program that has locked it.
"""

import sqlite3
import time

BEGINS_AFTER = 4  # commits in a row
ALONE_AFTER = 8  # turns of the loop in a row
LOOK_AGAIN = 16  # turns; two in a row, because of two that take turns each sees one only
QUICK = 0.001  # seconds a commit takes
JUST_NOW = 0.005  # seconds since the last one
PAUSE = 0.002  # seconds that a thread gives way for
MOST = 1000  # pages that the loop writes, about, until the thread commits, which takes a WAL that has grown into the store
PAGES = 2  # for each registration, and for each commit besides


class Burst:
    """`checkpoint`: pages of WAL; `busy_timeout`: seconds. Both are what the connection has while the thread commits."""

    def __init__(self, connection: sqlite3.Connection, checkpoint: int, busy_timeout: float) -> None:
        self._connection = connection
        self._settings = checkpoint, round(busy_timeout * 1000)
        self._quick = 0  # commits of registrations in a row that were quick
        self._alone = 0  # turns of the loop in a row in which one came, of those in which any did
        self._last = 0.0
        self._here = 0  # pages that the loop has written since the last commit of the thread

    def goes_on(self, now: float) -> bool:
        """Whether the loop may commit. `now`: of `time.perf_counter`."""
        return self._quick >= BEGINS_AFTER and self._here < MOST and now - self._last < JUST_NOW

    @property
    def is_near(self) -> bool:
        """Whether it begins with the next commit, or has begun."""
        return self._quick >= BEGINS_AFTER - 1

    def begin(self, registrations: int) -> None:
        """The loop commits so many next; `end`: the thread does."""
        if not self._here:
            self._set(0, 0)
        self._here += PAGES * (1 + registrations)

    def end(self) -> None:
        if self._here:
            self._set(*self._settings)
        self._here = 0

    @property
    def is_alone(self) -> bool:
        """Whether whoever registers need not wait for the end of the turn: for a while nobody else came in one. Now and then
        it is looked again."""
        return self._alone >= ALONE_AFTER and self._alone % LOOK_AGAIN > 1

    def give_way(self, now: float) -> float:
        """Any thread that computes for long, between two pieces: each time the loop calls the kernel it loses the interpreter
        lock to such a thread, some six times for each registration. Waits if one has only just been stored; answers for how many
        seconds."""
        if now - self._last >= JUST_NOW:
            return 0.0
        time.sleep(PAUSE)
        return PAUSE

    def came(self, operations: int) -> None:
        """So many came in one turn of the loop."""
        self._alone = self._alone + 1 if operations == 1 else 0

    def count_group(self, registering: int, operations: int, took: float, now: float) -> None:
        """A commit of the thread has ended, for so many operations, of which some were registrations. What polls write takes
        longer and says nothing of who registers, unless the disk has become slow."""
        if registering == operations:
            self.count(True, took, now)
        elif took >= JUST_NOW:
            self._quick = 0

    def count(self, stored: bool, took: float, now: float) -> None:
        """A commit of registrations has ended. Not `stored`: the thread has to look at them."""
        self._quick = self._quick + 1 if stored and took < QUICK else 0
        self._last = now

    def _set(self, checkpoint: int, busy_timeout: int) -> None:
        self._connection.execute(f"PRAGMA wal_autocheckpoint = {checkpoint}").fetchall()
        self._connection.execute(f"PRAGMA busy_timeout = {busy_timeout}").fetchall()
