"""The embedded engine.

Who may touch what:
- The ledger's lock guards the plan of the beats and the live tasks, and is held for moments only: never across SQL,
  a handler or another lock. `LiveTasks.get` alone is used without it (one look into a dictionary).
- Durable changes reach memory on the thread that commits (the writer, in a burst the loop), right after their commit and in
  the order of commits (`Ledger.settle_*`); what the loop must hear of them waits there and is told by `_committed`, one call for
  each commit.
- Changes that are not durable reach memory at once, on the caller's thread, compared by `task_seq` like the others.
- The outbox and the courier belong to the event loop alone, and so does `tick`, which dispatches whatever is due.
- A poll's token is raised when it starts and looked at inside the transaction that writes its results; whoever was abandoned
  by the workers, or outlived `close`, writes nothing.
- Order of locks: the workers', then the ledger's. Nothing calls the workers or the store while it holds the ledger's.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from task_daemon.core.errors import Draining, Refusal, StoreFull
from task_daemon.core.measures import Measures
from task_daemon.core.model import Change, Delivery, Event, Query, Task
from task_daemon.core.ports import Added, Backlog, Beat, Check, Clock, Handlers, Meanwhile, NewTask, Page, Tell, Times, Watched
from task_daemon.engine.beats import NEVER
from task_daemon.engine.courier import Courier
from task_daemon.engine.local.check import Checker
from task_daemon.engine.local.keeper import Keeper
from task_daemon.engine.local.ledger import Ledger
from task_daemon.engine.local.rounds import Rounds
from task_daemon.engine.local.store import Store
from task_daemon.engine.local.tables import Tables
from task_daemon.engine.outbox import Outbox

log = logging.getLogger("task_daemon.engine")

CHECKPOINT_EVERY = 60.0  # seconds
CHUNK = 1000  # rows of a checkpoint in one commit, tasks loaded or expired at a time
LAST_CHUNK = 10_000  # rows in one commit when the engine closes and nobody waits behind them
LOOK_FOR_ROOM = 1.0  # seconds between two looks whether a full disk has room again
LOOK_AT_WALL = 5.0  # seconds of monotonic time after which wall deadlines are looked at again: the wall clock may be set
PURGED_AT_ONCE = 1000
STUCK_AFTER = 60.0  # seconds


class LocalEngine:
    """The `Engine` port on one SQLite file, timers and worker threads. `stuck_after(zone)`: seconds without a sign of life
    after which a poll is abandoned."""

    def __init__(
        self,
        workspace: Path,
        clock: Clock,
        workers: int = 4,
        stuck_after: Callable[[str], float] = lambda _zone: STUCK_AFTER,
        per_target: int = 4,
        concurrency: int = 32,
    ) -> None:
        self.watched = Watched()
        self.measures = Measures()
        self._clock = clock
        self._workspace = workspace
        self._worker_count = workers
        self._stuck_after = stuck_after
        self._ledger = Ledger(clock, self.watched, self._tell_watched, self.measures.late)
        self._lock = self._ledger.lock
        self._beats = self._ledger.beats
        self._live = self._ledger.live
        self._outbox = Outbox(per_target, concurrency)
        self._checker = Checker(workspace / "store.db")
        self.look_at_wall = LOOK_AT_WALL  # more where nobody sets the wall clock
        self._paused: set[str] = set()
        self._saving = False
        self._beside: set[asyncio.Task[None]] = set()
        self._loading: asyncio.Task[None] | None = None
        self._timing: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()
        self._stirred = asyncio.Event()  # for `idle`
        self._planned = NEVER
        self._idling = 0
        self._opened = False
        self._closing = False

    # ---- opening and closing

    async def open(self, intervals: Mapping[str, float], handlers: Handlers, spread: Collection[str] = ()) -> None:
        """Returns when polls have begun; the stored tasks are still being loaded then."""
        self._loop = asyncio.get_running_loop()
        self._handlers = handlers
        self.store = Store(self._workspace / "store.db", self._committed, handlers.fatal, self.measures)
        await self.store.open(self._clock.now())
        self._keeper = Keeper(self.store, self._ledger)
        await self._keeper.begin()
        self._paused = set(await self.store.read(lambda look: look.paused()))
        self._rounds = Rounds(
            self._ledger,
            self._clock,
            handlers,
            self._worker_count,
            self._stuck_after,
            self._stir_in_time,
            self.store.give_way,
        )
        self._courier = Courier(self._outbox, self._clock, handlers.deliver, self._record, self._stir, self.measures)
        now = self._clock.monotonic()
        self._next_checkpoint = now + CHECKPOINT_EVERY
        self._next_look = now
        with self._lock:
            for zone, interval in intervals.items():
                self._beats.configure(zone, interval, now, zone in spread)
            for zone in self._paused:
                self._beats.pause(zone, True)
        self._outbox.discover(await self.store.read(lambda look: look.targets()))
        self._opened = True
        self._loading = self._loop.create_task(self._load())
        self._timing = self._loop.create_task(self._keep_time())
        for task in (self._loading, self._timing):
            task.add_done_callback(self._ended)

    async def close(self) -> None:
        if not self._opened or self._closing:
            return
        self._closing = True
        self._checker.stop()
        for task in (self._timing, self._loading, *self._beside):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        self._rounds.close()
        await self._courier.close()
        try:
            await self._keeper.save(LAST_CHUNK)
            await self._keeper.end()
        except Refusal as error:
            log.error("cannot put the latest progress on disk: %s", error)
        await self.store.close()

    # ---- tasks

    async def add(self, new: Sequence[NewTask], meanwhile: Meanwhile | None = None) -> list[Added]:
        packed: dict[str, bytes] = {}

        def work(tables: Tables) -> tuple[list[Added], list[Event]]:
            return tables.add(new, self._live.get)

        def settle(result: tuple[list[Added], list[Event]]) -> None:
            self._ledger.settle_added(result, packed)

        def get_ready() -> Tell | None:
            tell = None if meanwhile is None else meanwhile()
            if tell is None:  # it would hold the answer up after the commit
                packed.update([(each.task.uid, self._live.pack(each.task)) for each in new])
            return tell

        try:
            answers, _ = await self.store.write(work, settle, new=True, registers=new, meanwhile=get_ready)
        except StoreFull:  # who repeats a registration is answered all the same: it is on disk
            if await self.known(new) < len(new):
                raise
            answers, _ = await self.store.write(work, settle)
        return answers

    async def known(self, new: Sequence[NewTask]) -> int:
        return await self.store.write(lambda tables: tables.known(new, self._live.get))

    def get(self, uid: str) -> Task | None:
        return self._live.get(uid)

    async def load(self, uid: str) -> Task | None:
        task = self._live.get(uid)
        if task is not None:
            return task
        task = await self.store.read(lambda look: look.load(uid))
        return None if task is None else self._keeper.newest(task)

    async def find(self, query: Query) -> Page:
        tasks, more, cursor = await self.store.read(lambda look: look.find(query))
        return Page([self._keeper.newest(task) for task in tasks], more, cursor)

    def tally(self) -> Mapping[tuple[str, str, str], int]:
        with self._lock:
            return self._live.tally()

    def live(self) -> int:
        return self._live.unfinished()

    def live_of(self, owner_uid: int) -> int:
        return self._live.live_of(owner_uid)

    def times(self, task: Task) -> Times:
        with self._lock:
            if task.uid not in self._live:
                return Times(None, None)
            now, wall = self._clock.monotonic(), self._clock.now()
            return self._beats.times(task.zone, task.uid, task.poll_interval, task.created_at, now, wall)

    def first_poll(self, task: Task, among: int) -> float | None:
        with self._lock:
            now, wall = self._clock.monotonic(), self._clock.now()
            return self._beats.first_poll(task.zone, task.uid, task.poll_interval, among, now, wall)

    async def change(self, changes: Sequence[Change]) -> list[bool]:
        if not any(change.durable for change in changes):
            return self._ledger.remember(None, changes)
        answers, _, _ = await self.store.write(
            lambda tables: self._ledger.apply(tables, None, changes), self._ledger.settle_applied
        )
        return answers

    def report(self, beat: Beat | None, changes: Sequence[Change]) -> list[bool]:
        if not any(change.durable for change in changes):
            return self._ledger.remember(beat, changes)
        try:
            answers, _, _ = self.store.write_blocking(
                lambda tables: self._ledger.apply(tables, beat, changes), self._ledger.settle_applied
            )
        except Draining:
            return [False] * len(changes)
        return answers

    # ---- beats

    def batch(self, beat: Beat) -> Sequence[Task]:
        with self._lock:
            uids = self._beats.uids(beat.zone, beat.token)
        return self._live.some(uids)

    def poke(self, zone: str, uid: str | None = None) -> None:
        with self._lock:
            if uid is not None and uid not in self._live:
                return
            self._beats.poke(zone, uid)
        self._from_thread(self._woken.set)

    async def pause(self, zone: str, paused: bool) -> None:
        await self.store.write(lambda tables: tables.pause(zone, paused))
        (self._paused.add if paused else self._paused.discard)(zone)
        with self._lock:
            self._beats.pause(zone, paused)
        self._woken.set()

    def paused(self) -> frozenset[str]:
        return frozenset(self._paused)

    # ---- history and deliveries

    async def events(self, after: int, limit: int, uid: str | None = None) -> list[Event]:
        return await self.store.read(lambda look: look.events(after, limit, uid))

    async def deliveries(
        self,
        uid: str | None = None,
        state: str | None = None,
        before: str | None = None,
        limit: int = 100,
        owner_uid: int | None = None,
    ) -> list[Delivery]:
        return await self.store.read(lambda look: look.deliveries(uid, state, before, limit, owner_uid))

    async def delivery(self, delivery_id: str) -> Delivery | None:
        return await self.store.read(lambda look: look.delivery(delivery_id))

    async def backlog(self) -> Backlog:
        return await self.store.read(lambda look: look.backlog())

    async def callback_counts(self, uids: Sequence[str]) -> dict[str, dict[str, int]]:
        return await self.store.read(lambda look: look.counts(uids))

    async def redeliver(self, delivery_id: str) -> Delivery:
        now = self._clock.now()
        again = await self.store.write(lambda tables: tables.redeliver(delivery_id, now))
        self._outbox.revive(again, now)
        self._dispatch_deliveries()
        return again[0]

    async def acknowledge(self, delivery_id: str) -> Delivery:
        read = await self.store.write(lambda tables: tables.acknowledge(delivery_id))
        self._outbox.remove(read.uid, read.id)
        self._dispatch_deliveries()
        return read

    def wake_owner(self, owner_uid: int) -> None:
        if self._closing or not self._outbox.waits(owner_uid):
            return
        if self._outbox.wake(owner_uid, self._clock.now()):
            self._aside(self._wake_stored(owner_uid))
        self._dispatch_deliveries()

    # ---- upkeep

    async def purge(self, finished_before: float, keep: int) -> int:
        return len(await self.store.write(lambda tables: tables.purge(finished_before, keep, PURGED_AT_ONCE)))

    async def checkpoint(self) -> None:
        await self._keeper.save(CHUNK)

    async def alive(self) -> None:
        """Returns when the store's thread has come to it: never while it hangs. Raises a Refusal when it refuses."""
        await self.store.write(lambda _tables: None)

    async def check(self) -> Check:
        return await self._checker.check()

    def status(self) -> Mapping[str, Any]:
        now, wall = self._clock.monotonic(), self._clock.now()
        stuck = self._rounds.workers.stuck()
        with self._lock:
            zones = self._beats.facts(now, wall)
            live, kept, dirty = self._live.unfinished(), len(self._live), len(self._live.dirty)
        return {
            "live": live,
            "untidy": kept - live,
            "dirty": dirty,
            "loading": self._keeper.loading,
            "zones": zones,
            "paused": sorted(self._paused),
            "workers": {"count": self._worker_count, "busy": self._rounds.workers.busy()},
            "stuck": [{"zone": zone, "since": wall - (now - at)} for zone, at in stuck.items()],
            "outbox": self._outbox.counts() | {"held": self._outbox.held_targets()},
            "store": self.store.facts(),
            "salvage": self.store.salvage,
        }

    async def idle(self, besides: Collection[str] = ()) -> None:
        """For tests: everything that is due now was dispatched and has finished, but for polls of the zones `besides`
        (and whatever has to wait behind those, if they hold all workers)."""
        self._idling += 1
        try:
            await self._until_idle(besides)
        finally:
            self._idling -= 1

    async def _until_idle(self, besides: Collection[str]) -> None:
        while True:
            self._stirred.clear()
            await asyncio.sleep(0)  # what threads have left for the loop so far
            self.tick()
            self._woken.set()
            if self._rounds.next_deadline() <= self._clock.now():
                continue  # more of them are due than are looked at in one tick
            workers = self._rounds.workers
            hung = sum(1 for zone in workers.busy() if zone in besides)
            under_way = workers.unfinished() - hung if hung < self._worker_count else 0
            starting = self._loading is not None and not self._loading.done()
            waiting = self._rounds.expiring or self._beside or starting or self._ledger.has_news
            if not (under_way or waiting or self._courier.busy or self.store.busy):
                return
            await self._stirred.wait()

    # ---- timing (event loop)

    def tick(self) -> float | None:
        """Dispatch everything that is due; the monotonic time of the next, None if there is nothing to wait for."""
        self._planned = NEVER  # for `_stir_in_time`, until it is known how long nothing will be looked at
        now = self._clock.monotonic()
        self._rounds.dispatch(now, self._keeper.loading)
        self._dispatch_deliveries()
        if now >= self._next_checkpoint and not self._saving:
            self._next_checkpoint = now + CHECKPOINT_EVERY
            self._saving = True
            self._aside(self._regular_checkpoint())
        if self.store.full and now >= self._next_look:
            self._next_look = now + LOOK_FOR_ROOM
            self._aside(self._look_for_room())
        self._planned = self._next_due(now)
        return self._planned

    def _next_due(self, now: float) -> float:
        room = self._next_look if self.store.full else NEVER
        due = min(self._rounds.next_due(self._keeper.loading), self._next_checkpoint, room)
        wall = min(self._outbox.next_due(), self._rounds.next_deadline())
        if wall < NEVER:
            due = min(due, now + min(self.look_at_wall, max(0.0, wall - self._clock.now())))
        return due

    async def _keep_time(self) -> None:
        while True:
            self._woken.clear()
            await self._clock.sleep(self.tick(), self._woken)

    def _dispatch_deliveries(self) -> None:
        if self._closing:
            return
        self._courier.pump()
        for target in list(self._outbox.hungry):
            self._aside(self._fill(target, self._outbox.room(target)))

    async def _fill(self, target: str, limit: int) -> None:
        try:
            rows, horizon = await self.store.read(lambda look: look.lines(target, limit))
        except Refusal as error:
            log.error("cannot read the pending callbacks of %s: %s", target, error)
            self._outbox.unfilled(target, self._clock.now())
            return
        self._outbox.fill(target, rows, horizon, self._clock.now())
        self._dispatch_deliveries()
        self._woken.set()

    async def _wake_stored(self, owner_uid: int) -> None:
        now = self._clock.now()
        try:
            self._outbox.discover(await self.store.write(lambda tables: tables.wake(owner_uid, now)))
        except Refusal as error:
            log.error("cannot wake the callbacks of owner %d: %s", owner_uid, error)
        self._dispatch_deliveries()

    async def _regular_checkpoint(self) -> None:
        try:
            await self._keeper.save(CHUNK)
        except Refusal as error:
            log.error("cannot put the latest progress on disk: %s", error)
        finally:
            self._saving = False

    async def _look_for_room(self) -> None:
        with suppress(Refusal):
            await self.store.write(lambda _tables: None, new=True)

    async def _record(self, rows: Sequence[Delivery]) -> None:
        await self.store.write(lambda tables: tables.record(rows))

    # ---- telling the event loop

    def _committed(self) -> None:
        """Event loop, after each commit."""
        news = self._ledger.news()
        if not self._opened:
            return
        tasks = [task for some, _, _ in news for task in some]
        if tasks:
            self._tell(tasks, [event for _, events, _ in news for event in events])
        deliveries = [row for _, _, rows in news for row in rows]
        if deliveries:
            self._outbox.add(deliveries, self._clock.now())
            self._dispatch_deliveries()
        self._stirred.set()
        if self._next_due(self._clock.monotonic()) < self._planned:
            self._woken.set()

    def _tell(self, tasks: Sequence[Task], events: Sequence[Event]) -> None:
        try:
            self._handlers.change(tasks, events)
        except Exception:
            log.exception("a listener to changes raised")

    def _tell_watched(self, tasks: Sequence[Task]) -> None:
        """Any thread."""
        self._from_thread(self._tell, tasks, ())

    def _aside(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something beside the timing; `idle` and `close` know of it."""
        task = self._loop.create_task(work)
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.critical("the engine cannot go on: %s", error, exc_info=error)
            self._handlers.fatal(error)
        self._stir()

    def _stir(self) -> None:
        self._stirred.set()
        self._woken.set()

    def _stir_in_time(self, due: float) -> None:
        """Any thread: there is something to do then. The loop is woken only if it would sleep for longer, or for `idle`."""
        if due < self._planned or self._idling:
            self._from_thread(self._stir)

    def _from_thread(self, call: Callable[..., None], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:
            log.debug("a thread came back after the event loop was closed")

    async def _load(self) -> None:
        try:
            await self._keeper.load(self._woken.set)
        except Draining:
            return
