"""The store: SQLite in WAL mode with synchronous=FULL; one thread that writes (in a burst the loop: burst.py), one that reads.

The writer owns the only connection that writes and checkpoints: two connections doing that at one instant can corrupt a WAL
file (SQLite 3.7.0 to 3.51.2, the WAL-reset bug; fixed in 3.51.3). It commits in groups: whatever arrived while the last fsync
ran shares the next one, and one call into the event loop answers all of it. On a full disk the reserve is given up for whatever
is not new work, which is refused until there is room again. Any other failure to write leaves the outcome unknown (a failed
fsync may have reached the disk all the same), so the store stops (I10).
"""

import asyncio
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import msgspec

from task_daemon.core import crash
from task_daemon.core.errors import Degraded, Draining, OutcomeUnknown, Refusal, StoreError, StoreFull
from task_daemon.core.measures import Measures
from task_daemon.core.ports import Meanwhile, NewTask
from task_daemon.core.prompt import Prompt
from task_daemon.engine.local import salvage, wal
from task_daemon.engine.local.burst import QUICK, Burst
from task_daemon.engine.local.migrate import migrate, migrations
from task_daemon.engine.local.operation import Answer, Operation, Result, answer_now
from task_daemon.engine.local.reading import Reading
from task_daemon.engine.local.reserve import Reserve
from task_daemon.engine.local.tables import Tables
from task_daemon.engine.local.workers import Aside

log = logging.getLogger("task_daemon.engine")

T = TypeVar("T")
GROUP = 1000  # operations in one commit, at most
CACHE = 16_384  # KiB of pages the writer keeps
CHECKPOINT = 4000  # pages of WAL (16 MiB) until it is taken into the store; every 1000, one of 100 requests would wait for that
LONGEST_WAL = 5000  # pages; a large commit or a burst goes beyond that
MOST_HERE = 64  # registrations that the loop commits at a time
MANY = 20  # registrations of one operation: getting the answer to them ready takes longer than waking the loop for it
HUNG = 0.1  # seconds; longer is no property of the disk, but an accident
PATIENCE = 1 / 8  # of what the last commit took on a slow disk: whoever it answered may be back by then, and shares the next
TELL_WITHIN = 0.003  # seconds after a commit of the loop: whatever follows from it, with all that were made since
BUSY_TIMEOUT = 5.0  # seconds; somebody may look into the store with another program
PASSING = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
OF_ONE_OPERATION = {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG}


class Store:
    """`committed`: called on the loop after each commit, before its answers are seen but for those of registrations, whose
    clients wait for nothing else, and in a burst after some commits; `fatal`: on the loop, once, after whoever was refused has
    heard of it."""

    def __init__(
        self,
        path: Path,
        committed: Callable[[], None],
        fatal: Callable[[BaseException], None],
        measures: Measures | None = None,
    ) -> None:
        self.path = path
        self._file = str(path)  # a Path is made into one with each use
        self.salvage: dict[str, Any] | None = None
        self.commit_seconds = 0.0  # the last commit took
        self.commits = 0
        self._reserve = Reserve(path.parent)
        self._committed = committed
        self._fatal = fatal
        self._measures = measures or Measures()
        self._operations: SimpleQueue[list[Operation] | None] = SimpleQueue()
        self._arrived: list[Operation] = []  # in this turn of the loop
        self._pending = 0
        self._at_once = 0  # operations that were under way when the last commit ended
        self._turn = threading.Lock()  # held by whoever commits
        self._gate = threading.Lock()  # so that nothing is queued behind the end
        self._closed = False
        self._broken: BaseException | None = None
        self._told = False  # that it is broken
        self._wal_filled = False
        self._wrote = False  # the last commit of the thread
        self._telling: asyncio.TimerHandle | None = None

    async def open(self, now: float) -> None:
        """Raises StoreError. `now`: wall time, for the name of a damaged file. A damaged store is salvaged."""
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(self._connect, now)
        self._reader = Aside("store-reader")
        self._writer = threading.Thread(target=self._work, name="store-writer", daemon=True)
        self._writer.start()

    async def close(self) -> None:
        """What was queued is written, the WAL is taken into the store, both threads end."""
        with self._gate:
            self._closed = True
            if self._arrived:
                self._operations.put(self._arrived)
            self._arrived = []
            self._operations.put(None)
        await asyncio.to_thread(self._writer.join)
        await asyncio.to_thread(self._reader.close)
        if self._telling is not None:
            self._telling.cancel()
            self._tell()
        self._reading.close()
        try:
            if self._broken is None:
                self._burst.end()
                self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            self.connection.close()
        except sqlite3.Error as error:
            log.error("cannot close the store %s: %s", self.path, error)

    @property
    def busy(self) -> bool:
        return self._pending > 0

    @property
    def full(self) -> bool:
        """The disk has no room for new work. Any thread."""
        return self._reserve.missing

    def write(
        self,
        work: Callable[[Tables], T],
        settle: Callable[[T], None] | None = None,
        new: bool = False,
        registers: Sequence[NewTask] = (),
        meanwhile: Meanwhile | None = None,
    ) -> Awaitable[T]:
        """Event loop. `meanwhile`: called on it once, while this is being written, and before it is answered.

        Raises what `work` raises, StoreFull, OutcomeUnknown, Degraded, Draining.
        """
        answer: asyncio.Future[T] = Prompt(loop=self._loop) if registers else self._loop.create_future()
        operation = Operation(work, settle, answer, new, registers, meanwhile)
        self._expect()
        if self._burst.is_alone and self._write_here([operation]):
            self._burst.came(1)
            return answer
        if not self._arrived:
            self._loop.call_soon(self._pass_on)
        self._arrived.append(operation)
        return answer

    def write_blocking(self, work: Callable[[Tables], T], settle: Callable[[T], None] | None = None) -> T:
        """Like `write`, for worker threads."""
        answer: Future[T] = Future()
        operation = Operation(work, settle, answer)
        self._expect([operation])
        return answer.result()

    async def read(self, look: Callable[[Reading], T]) -> T:
        """Event loop; sees every commit that was answered before."""
        answer: asyncio.Future[T] = self._loop.create_future()

        def call() -> None:
            result: Result
            try:
                result = look(self.reading), None
            except Exception as error:
                result = None, error
                if salvage.is_damage(error):
                    self._break(error)
            self._on_loop(self._resolve, [(answer, result)])

        if self._closed:
            raise Draining("cannot read the store: the daemon is stopping", retry_after=1.0)
        self._reader.submit(call)
        try:
            return await answer
        except (sqlite3.Error, msgspec.DecodeError) as error:
            raise Degraded(f"cannot read the store: {error}", retry_after=5.0) from error

    def give_way(self) -> float:
        """Worker threads: wait a moment if registrations come one after the other; for how many seconds."""
        return self._burst.give_way(time.perf_counter())

    def facts(self) -> dict[str, Any]:
        """Any thread."""
        sizes = [file.stat().st_size for file in (self.path, Path(f"{self.path}-wal")) if file.exists()]
        return {
            "bytes": sum(sizes),
            "commit_seconds": self.commit_seconds,
            "commits": self.commits,
            "queued": self._pending,
            "writable": self._broken is None,
            "full": self.full,
            "sqlite": sqlite3.sqlite_version,
        }

    # ---- opening

    def _connect(self, now: float) -> None:
        try:
            self.salvage = salvage.mend(self.path, now, len(migrations()), lambda one, version: migrate(one, self.path, version))
            self._reserve.make()
            self.connection = sqlite3.connect(
                self.path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False, cached_statements=256
            )
            self.connection.execute("PRAGMA journal_mode = WAL").fetchall()
            self.connection.execute("PRAGMA synchronous = FULL")
            self.connection.execute(f"PRAGMA cache_size = -{CACHE}")
            self.connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT}").fetchall()
            migrate(self.connection, self.path)
            self.tables = Tables(self.connection)
            self._burst = Burst(self.connection, CHECKPOINT, BUSY_TIMEOUT)
            self._inode = os.stat(self.path).st_ino
            self._reading = sqlite3.connect(
                f"{self.path.absolute().as_uri()}?mode=ro",
                uri=True,
                timeout=BUSY_TIMEOUT,
                isolation_level=None,
                check_same_thread=False,
            )
            self._reading.execute("PRAGMA query_only = 1")
            self._reading.execute("PRAGMA wal_autocheckpoint = 0").fetchall()
            self.reading = Reading(self._reading)
        except (sqlite3.Error, OSError) as error:
            raise StoreError(
                f"cannot open the store {self.path}: {error}; a writable directory on a local disk is needed"
            ) from error

    # ---- writing

    def _expect(self, at_once: list[Operation] | None = None) -> None:
        """Count one more operation, and queue it if it is given. Raises Draining once the store is closed."""
        with self._gate:
            if self._closed:
                raise Draining("cannot write to the store: the daemon is stopping", retry_after=1.0)
            self._pending += 1
            if at_once is not None:
                self._operations.put(at_once)

    def _pass_on(self) -> None:
        """What came in one turn of the loop is written in one commit: in a burst here, or else after one change of threads."""
        arrived, self._arrived = self._arrived, []
        self._burst.came(len(arrived))
        if not arrived or self._write_here(arrived):
            return
        for operation in arrived:
            if operation.meanwhile is not None and len(operation.registers) < MANY:
                self._loop.call_soon(operation.meanwhile)  # in the time that the writer takes to wake up
                operation.meanwhile = None
        self._operations.put(arrived)

    def _work(self) -> None:
        while (group := self._operations.get()) is not None:
            ended = False
            patience = time.monotonic() + min(self.commit_seconds, HUNG) * PATIENCE if self.commit_seconds > QUICK else 0.0
            while len(group) < GROUP and not ended:
                wait = patience - time.monotonic() if len(group) < self._at_once else 0.0
                try:
                    following = self._operations.get(wait > 0, wait)
                except Empty:
                    break
                if following is None:
                    ended = True
                else:
                    group += following
            for operation in group:
                if operation.meanwhile is not None:
                    self._on_loop(operation.meanwhile)  # it gets the interpreter lock when SQLite has come to work
            with self._turn:
                self._fill_wal()
                results = self._commit(group)
            self._at_once = self._pending
            if self._wrote:  # replays say nothing of the disk
                registering = sum([bool(operation.registers) for operation in group])
                self._burst.count_group(registering, len(group), self.commit_seconds, time.perf_counter())
            self._answer(group, results)
            if ended:
                return

    def _tell(self) -> None:
        self._telling = None
        self._committed()

    def _fill_wal(self) -> None:
        """Once, when somebody registers one task after the other on a quick disk."""
        if self._wal_filled or self._broken is not None or not self._burst.is_near:
            return
        self._wal_filled = True
        with suppress(sqlite3.Error, OSError):  # whatever it is, the commit that follows finds it, too
            self._check_place()
            self.connection.execute("BEGIN IMMEDIATE")  # so that no other program writes into it meanwhile
            try:
                wal.fill(self.path, LONGEST_WAL)
            finally:
                self.connection.execute("ROLLBACK")

    def _write_here(self, group: list[Operation]) -> bool:
        """In the middle of a burst, on the loop, in one commit. Not, and nothing is stored, if the thread has to: it is at work,
        something is known already, cannot be stored, or does not go on without waiting."""
        if self._pending != len(group) or not self._burst.goes_on(time.perf_counter()):
            return False
        single = len(group) <= MOST_HERE and all(len(operation.registers) == 1 for operation in group)
        if not single or not self._turn.acquire(blocking=False):
            return False
        try:
            results = None if self._broken is not None or self.full else self._insert(group)
        except Exception as error:  # no memory, perhaps; nobody is left waiting
            results = self._unknown(group, error)
        finally:
            self._turn.release()
        self._burst.count(results is not None, self.commit_seconds, time.perf_counter())
        if results is None:
            return False
        self._resolve([(operation.answer, result) for operation, result in zip(group, results, strict=True)], len(group), True)
        return True

    def _insert(self, group: list[Operation]) -> list[Result] | None:
        within = True
        try:
            tells = [operation.get_ready() for operation in group]
            started = time.perf_counter()
            self._burst.begin(len(group))
            crash.reach("burst.before")
            stored = self.tables.add_new([operation.registers for operation in group])
            within = False
            if stored is None:
                return None
            crash.reach("burst.after")
            self._check_place()
        except Exception as error:
            within = within and not isinstance(error, MemoryError)  # SQLite's, too: from after the flush, perhaps
            results = self._failed(group, error, within)
            locked = salvage.code_of(error, sqlite3.SQLITE_ERROR) in PASSING and self._broken is None  # by another program
            return None if locked or not results else results
        for tell in tells:
            answer_now(tell)
        self._count(started, len(group))
        return self._settled(group, [(each, None) for each in stored])

    def _commit(self, group: list[Operation]) -> list[Result]:
        """One transaction; the results in the order of the group."""
        self._wrote = False
        if self._broken is not None:
            refusal = Degraded(f"cannot write to the store: an earlier write failed ({self._broken})", retry_after=5.0)
            return [(None, refusal)] * len(group)
        if self.full and any(operation.new for operation in group) and not self._reserve.make():
            return self._without_new(group)
        started = time.perf_counter()
        at_once = all(operation.registers for operation in group)
        results: list[Result] = []
        within = False
        try:
            self._burst.end()
            changes = self.connection.total_changes
            if at_once:
                crash.reach("register.before")
                within = True
                results = [(each, None) for each in self.tables.add_new([one.registers for one in group]) or ()]
                within = False
            if not results:
                self.connection.execute("BEGIN IMMEDIATE")
                within = True
                results = self._attempt_all(group, at_once)
                within = False
                crash.reach("commit.before")
                self.connection.execute("COMMIT")
            crash.reach("commit.after")
            self._wrote = self.connection.total_changes > changes
            self._check_place()
        except Exception as error:
            within = within and not (at_once and isinstance(error, MemoryError))  # as in `_insert`
            results = self._failed(group, error, within)
            return results or [result for operation in group for result in self._commit([operation])]
        self._count(started, len(group))
        return self._settled(group, results)

    def _count(self, started: float, operations: int) -> None:
        self.commit_seconds = time.perf_counter() - started
        self.commits += 1
        self._measures.commit.add(self.commit_seconds)
        self._measures.operations += operations

    def _check_place(self) -> None:
        """Files that were removed or replaced can be written to without an error, and are gone when they are closed (2 us)."""
        if os.stat(self._file).st_ino != self._inode:
            raise FileNotFoundError(f"{self.path} was replaced by another file")

    def _attempt_all(self, group: list[Operation], one_by_one: bool) -> list[Result]:
        """Registrations that follow one another are stored at once, unless it is known that this does not go."""
        results: list[Result] = []
        for registering, following in groupby(group, lambda operation: bool(operation.registers)):
            run = list(following)
            at_once = registering and len(run) > 1 and not one_by_one
            stored = self.tables.add_new([operation.registers for operation in run]) if at_once else None
            if stored is None:
                results += [self._attempt(operation) for operation in run]
            else:
                results += [(each, None) for each in stored]
        return results

    def _attempt(self, operation: Operation) -> Result:
        try:
            return operation.work(self.tables), None
        except Refusal as refusal:  # it wrote nothing
            return None, refusal

    def _settled(self, group: list[Operation], results: list[Result]) -> list[Result]:
        for operation, (value, error) in zip(group, results, strict=True):
            if error is None and operation.settle is not None:
                try:
                    operation.settle(value)
                except Exception as fault:  # memory is not what the disk is any more
                    self._break(fault)
        return results

    def _failed(self, group: list[Operation], error: Exception, within: bool) -> list[Result]:
        """What a failed commit means for its operations; empty if it is to be tried with each of them alone. `within`: nothing
        can have been flushed yet, unless SQLite says so."""
        try:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            self.tables.reread()
        except sqlite3.Error as second:
            return self._unknown(group, second)
        code = salvage.code_of(error, sqlite3.SQLITE_ERROR)
        if code == sqlite3.SQLITE_FULL:
            log.error("cannot write to the store: %s", error)
            if self._reserve.give_up() or {operation.new for operation in group} == {True, False}:
                return self._without_new(group)
            return [(None, _full())] * len(group)
        if code in PASSING:
            return [(None, Degraded(f"cannot write to the store now: {error}", retry_after=1.0))] * len(group)
        if not within or salvage.is_damage(error) or (isinstance(error, sqlite3.Error) and code not in OF_ONE_OPERATION):
            return self._unknown(group, error)
        if len(group) > 1:
            return []
        log.error("cannot store an operation: %s", error, exc_info=error)
        return [(None, error)]

    def _without_new(self, group: list[Operation]) -> list[Result]:
        """The disk is full: only what ends work or tells of it is stored."""
        others = [operation for operation in group if not operation.new]
        results = iter(self._commit(others) if others else [])
        return [(None, _full()) if operation.new else next(results) for operation in group]

    def _unknown(self, group: list[Operation], error: BaseException) -> list[Result]:
        self._break(error)
        return [(None, OutcomeUnknown(f"cannot tell whether this was stored: {error}", retry_after=5.0))] * len(group)

    def _break(self, error: BaseException) -> None:
        if self._broken is None:
            self._broken = error
            if salvage.is_damage(error):
                with suppress(OSError):
                    salvage.suspect(self.path)
            log.critical("the store cannot be trusted any more and takes nothing from here on: %s", error, exc_info=error)

    def _answer(self, group: list[Operation], results: list[Result]) -> None:
        for_loop: list[tuple[asyncio.Future[Any], Result]] = []
        for operation, result in zip(group, results, strict=True):
            answer = operation.answer
            if isinstance(answer, asyncio.Future):
                for_loop.append((answer, result))
            elif result[1] is None:
                answer.set_result(result[0])
            else:
                answer.set_exception(result[1])
        self._on_loop(self._resolve, for_loop, len(group))

    def _resolve(self, answers: Sequence[tuple[Answer, Result]], ended: int = 0, here: bool = False) -> None:
        with self._gate:
            self._pending -= ended
        for answer, (value, error) in answers:
            if answer.done():
                continue
            if error is None:
                answer.set_result(value)
            else:
                answer.set_exception(error)
        if here:
            if self._telling is None:
                self._telling = self._loop.call_later(TELL_WITHIN, self._tell)
        elif ended:
            self._committed()
        if self._broken is not None and not self._told:
            self._told = True
            self._loop.call_soon(self._fatal, self._broken)

    def _on_loop(self, call: Callable[..., object], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:
            log.warning("the event loop was closed before the store")


def _full() -> StoreFull:
    return StoreFull("cannot write to the store: its disk is full; free some space", retry_after=10.0)
