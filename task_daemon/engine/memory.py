"""An engine without threads or disk, for tests and the tutorial: it forgets everything with the process.

Everything happens on the event loop: polls and expiry run inside `tick`, so a handler that blocks blocks the loop. Closed and
opened again, the same object goes on with what it remembers.
"""

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from task_daemon.core import transitions
from task_daemon.core.errors import Conflict, CursorExpired, IdempotencyKeyReused, NotFound
from task_daemon.core.measures import Measures
from task_daemon.core.model import Change, Delivery, DeliveryState, Event, Query, Task, differing
from task_daemon.core.ports import Added, Backlog, Beat, Check, Clock, Handlers, Meanwhile, NewTask, Page, Times, Watched
from task_daemon.engine.beats import NEVER, Beats
from task_daemon.engine.courier import Courier
from task_daemon.engine.live import LiveTasks, after, is_kept
from task_daemon.engine.outbox import Outbox, revived

log = logging.getLogger("task_daemon.engine")

LOOK_AT_WALL = 5.0  # seconds until wall deadlines are looked at again: the wall clock may be set
EXPIRED_AT_ONCE = 1000
PURGED_AT_ONCE = 1000


class MemoryBeat(Struct):
    zone: str
    token: int
    waited_for: float = 0.0

    def touch(self) -> None:
        """Nothing watches over an inline poll."""

    def give_way(self) -> None:
        """Nobody else is at work during an inline poll."""

    def waited(self, seconds: float) -> None:
        self.waited_for += seconds


class MemoryEngine:
    """The `Engine` port in dictionaries."""

    def __init__(self, clock: Clock, per_target: int = 4, concurrency: int = 32) -> None:
        self.watched = Watched()
        self.measures = Measures()
        self._clock = clock
        self._limits = (per_target, concurrency)
        self._tasks: dict[str, Task] = {}
        self._events: list[Event] = []
        self._seq = 0
        self._horizon = 0
        self._deliveries: dict[str, Delivery] = {}
        self._keys: dict[tuple[int, str], tuple[str, str]] = {}
        self._paused: set[str] = set()
        self._live = LiveTasks()
        self._beats = Beats(self.measures.late)
        self._outbox = Outbox(*self._limits)
        self._telling = 0

    async def open(self, intervals: Mapping[str, float], handlers: Handlers, spread: Collection[str] = ()) -> None:
        self._handlers = handlers
        self._woken, self._stirred = asyncio.Event(), asyncio.Event()
        self._live, self._beats, self._outbox = LiveTasks(), Beats(self.measures.late), Outbox(*self._limits)
        self._courier = Courier(self._outbox, self._clock, handlers.deliver, self._record, self._stir, self.measures)
        for zone, interval in intervals.items():
            self._beats.configure(zone, interval, self._clock.monotonic(), zone in spread)
            self._beats.pause(zone, zone in self._paused)
        for task in self._tasks.values():
            self._keep(task)
        pending = [row for row in self._deliveries.values() if row.state is DeliveryState.PENDING]
        self._outbox.add(pending, self._clock.now())
        self._timing = asyncio.get_running_loop().create_task(self._keep_time())

    async def close(self) -> None:
        self._timing.cancel()
        await asyncio.gather(self._timing, return_exceptions=True)
        self._beats.invalidate()
        await self._courier.close()

    # ---- tasks

    async def add(self, new: Sequence[NewTask], meanwhile: Meanwhile | None = None) -> list[Added]:
        tell = None if meanwhile is None else meanwhile()
        answers = self._decide(new)
        if tell is not None and not any(answer.replayed for answer in answers):
            tell()
        for item, answer in zip(new, answers, strict=True):
            if item.key is not None:
                self._keys.setdefault((item.task.owner.uid, item.key), (item.fingerprint, answer.task.uid))
        fresh = [answer.task for answer in answers if not answer.replayed]
        for task in fresh:
            self._keep(task)
        self._tell(fresh, self._log([transitions.registered(task) for task in fresh]))
        self._stir()
        return answers

    async def known(self, new: Sequence[NewTask]) -> int:
        return sum(answer.replayed for answer in self._decide(new))

    def _decide(self, new: Sequence[NewTask]) -> list[Added]:
        answers: list[Added] = []
        stored: list[NewTask] = []
        for index, item in enumerate(new):
            found = self._by_key(item, stored, index) or self._by_members(item.task, stored, index)
            answers.append(Added(item.task) if found is None else Added(found, replayed=True))
            if item.key is not None or found is None:
                stored.append(item if found is None else replace(item, task=found))
        return answers

    def get(self, uid: str) -> Task | None:
        return self._live.get(uid)

    async def load(self, uid: str) -> Task | None:
        return self._tasks.get(uid)

    async def find(self, query: Query) -> Page:
        found = [task for uid, task in sorted(self._tasks.items(), reverse=True) if matches(query, task)]
        return Page(found[: query.limit], len(found) > query.limit, self._seq)

    def tally(self) -> Mapping[tuple[str, str, str], int]:
        return self._live.tally()

    def live(self) -> int:
        return self._live.unfinished()

    def live_of(self, owner_uid: int) -> int:
        return self._live.live_of(owner_uid)

    def times(self, task: Task) -> Times:
        if task.uid not in self._live:
            return Times(None, None)
        now, wall = self._clock.monotonic(), self._clock.now()
        return self._beats.times(task.zone, task.uid, task.poll_interval, task.created_at, now, wall)

    def first_poll(self, task: Task, among: int) -> float | None:
        now, wall = self._clock.monotonic(), self._clock.now()
        return self._beats.first_poll(task.zone, task.uid, task.poll_interval, among, now, wall)

    async def change(self, changes: Sequence[Change]) -> list[bool]:
        return self.report(None, changes)

    def report(self, beat: Beat | None, changes: Sequence[Change]) -> list[bool]:
        if beat is not None and not self._beats.is_newest(beat.zone, beat.token):
            return [False] * len(changes)
        answers = [self._apply(change) for change in changes]
        self._stir()
        return answers

    # ---- beats

    def batch(self, beat: Beat) -> Sequence[Task]:
        return self._live.some(self._beats.uids(beat.zone, beat.token))

    def poke(self, zone: str, uid: str | None = None) -> None:
        if uid is None or uid in self._live:
            self._beats.poke(zone, uid)
            self._stir()

    async def pause(self, zone: str, paused: bool) -> None:
        (self._paused.add if paused else self._paused.discard)(zone)
        self._beats.pause(zone, paused)
        self._stir()

    def paused(self) -> frozenset[str]:
        return frozenset(self._paused)

    # ---- history and deliveries

    async def events(self, after: int, limit: int, uid: str | None = None) -> list[Event]:
        if uid is None and 0 < after < self._horizon:
            raise CursorExpired(
                f"cannot list events after {after}: some were removed with their tasks; go on after {self._horizon}",
                extra={"oldest": self._horizon},
            )
        found = (event for event in self._events if event.seq > after and uid in (None, event.uid))
        return [event for event, _ in zip(found, range(limit), strict=False)]

    async def deliveries(
        self,
        uid: str | None = None,
        state: str | None = None,
        before: str | None = None,
        limit: int = 100,
        owner_uid: int | None = None,
    ) -> list[Delivery]:
        rows = [row for row in self._deliveries.values() if uid in (None, row.uid) and owner_uid in (None, row.owner_uid)]
        rows = [row for row in rows if state is None or row.state == state]
        if uid is not None:
            return sorted(rows, key=lambda row: (row.task_seq, row.part))[:limit]
        rows = [row for row in rows if before is None or row.id < before]
        return sorted(rows, key=lambda row: row.id, reverse=True)[:limit]

    async def delivery(self, delivery_id: str) -> Delivery | None:
        return self._deliveries.get(delivery_id)

    async def backlog(self) -> Backlog:
        pending = [row for row in self._deliveries.values() if row.state is DeliveryState.PENDING]
        dead = sum(1 for row in self._deliveries.values() if row.state is DeliveryState.DEAD)
        return Backlog(len(pending), dead, min((row.created_at for row in pending), default=None))

    async def callback_counts(self, uids: Sequence[str]) -> dict[str, dict[str, int]]:
        counts = {uid: {"pending": 0, "delivered": 0, "dead": 0} for uid in uids}
        for row in self._deliveries.values():
            if row.uid in counts:
                counts[row.uid]["delivered" if row.state is DeliveryState.ACKED else row.state.value] += 1
        return counts

    async def redeliver(self, delivery_id: str) -> Delivery:
        wanted = self._delivery(delivery_id)
        group = [row for row in await self.deliveries(wanted.uid) if row.task_seq == wanted.task_seq]
        now = self._clock.now()
        again = revived(group, delivery_id, now)
        self._deliveries.update((row.id, row) for row in again)
        self._outbox.revive(again, now)
        self._stir()
        return again[0]

    async def acknowledge(self, delivery_id: str) -> Delivery:
        read = self._deliveries[delivery_id] = replace(self._delivery(delivery_id), state=DeliveryState.ACKED)
        self._outbox.remove(read.uid, read.id)
        self._stir()
        return read

    def wake_owner(self, owner_uid: int) -> None:
        self._outbox.wake(owner_uid, self._clock.now())
        self._stir()

    # ---- upkeep

    async def purge(self, finished_before: float, keep: int) -> int:
        pending = {row.uid for row in self._deliveries.values() if row.state is DeliveryState.PENDING}
        done = [task for task in self._tasks.values() if task.done and task.tidy]
        done.sort(key=lambda task: (task.finished_at or 0.0, task.uid))
        extra = max(0, len(done) - keep)
        old = [task for place, task in enumerate(done) if place < extra or (task.finished_at or 0.0) < finished_before]
        gone = {task.uid for task in old if task.uid not in pending}
        gone = set(sorted(gone)[:PURGED_AT_ONCE])
        self._horizon = max((event.seq for event in self._events if event.uid in gone), default=self._horizon)
        self._tasks = {uid: task for uid, task in self._tasks.items() if uid not in gone}
        self._events = [event for event in self._events if event.uid not in gone]
        self._deliveries = {row.id: row for row in self._deliveries.values() if row.uid not in gone}
        self._keys = {key: known for key, known in self._keys.items() if known[1] not in gone}
        return len(gone)

    async def checkpoint(self) -> None:
        self._live.dirty.clear()

    def status(self) -> Mapping[str, Any]:
        now, wall = self._clock.monotonic(), self._clock.now()
        return {
            "live": self._live.unfinished(),
            "untidy": len(self._live) - self._live.unfinished(),
            "dirty": len(self._live.dirty),
            "loading": False,
            "zones": self._beats.facts(now, wall),
            "paused": sorted(self._paused),
            "workers": {"count": 0, "busy": []},
            "stuck": [],
            "outbox": self._outbox.counts() | {"held": self._outbox.held_targets()},
            "store": {"bytes": 0, "commit_seconds": 0.0, "commits": 0, "queued": 0, "writable": True, "sqlite": None},
            "salvage": None,
        }

    async def check(self) -> Check:
        return Check()

    async def idle(self, besides: Collection[str] = ()) -> None:  # noqa: ARG002
        """For tests: everything that is due now was dispatched and has finished. No poll outlives `tick`, so there is
        nothing `besides` could name."""
        while True:
            self._stirred.clear()
            due = self.tick()
            if due <= self._clock.monotonic():
                continue
            if not (self._courier.busy or self._telling):
                return
            await self._stirred.wait()

    # ---- timing

    def tick(self) -> float:
        """Do everything that is due; the monotonic time of the next."""
        now = self._clock.monotonic()
        for zone in self._beats.due(now):
            self._poll(zone)
        tasks = self._live.expired(self._clock.now(), EXPIRED_AT_ONCE)
        if tasks:
            self._handlers.expire(tasks)
        self._courier.pump()
        deadline = self._live.next_deadline()
        wall = min(self._outbox.next_due(), NEVER if deadline is None else deadline)
        if wall == NEVER:
            return self._beats.next_due()
        return min(self._beats.next_due(), now + min(LOOK_AT_WALL, max(0.0, wall - self._clock.now())))

    async def _keep_time(self) -> None:
        while True:
            self._woken.clear()
            await self._clock.sleep(self.tick(), self._woken)

    def _poll(self, zone: str) -> None:
        token = self._beats.start(zone, self._clock.monotonic(), self._clock.now())
        if token is None:
            return
        beat = MemoryBeat(zone, token)
        try:
            outcome = self._handlers.poll(beat)
        except Exception:
            seconds = self._beats.failed(zone, token, self._clock.monotonic())
            log.exception("zone %s: the poll raised; polled again in %s s", zone, seconds)
            return
        self._beats.finish(zone, token, outcome, self._clock.monotonic(), beat.waited_for)

    async def _record(self, rows: Sequence[Delivery]) -> None:
        for row in rows:
            if self._deliveries[row.id].state is DeliveryState.PENDING:
                self._deliveries[row.id] = row

    # ---- inside

    def _apply(self, change: Change) -> bool:
        current = self._tasks.get(change.task.uid)
        if current is None or current.task_seq != change.before.task_seq:
            return False
        if not change.durable:
            task = self._live.swap(change)
            if task is None:
                return False
            self._tasks[task.uid] = task
            if self.watched.everything or task.uid in self.watched:
                self._tell([task], [])
            return True
        task = after(change.task, current)
        self._keep(task)
        events = self._log(change.events)
        seqs = {event.task_seq: event.seq for event in events}
        rows = [replace(row, seq=seqs.get(row.task_seq, row.seq)) for row in change.deliveries]
        self._deliveries.update((row.id, row) for row in rows)
        self._outbox.add(rows, self._clock.now())
        self._tell([task], events)
        return True

    def _keep(self, task: Task) -> None:
        self._tasks[task.uid] = task
        old = self._live.put(task)
        if not is_kept(task):
            self._beats.drop(task.zone, task.uid, task.poll_interval)
        elif old is None:
            self._beats.add(task.zone, task.uid, task.poll_interval, self._clock.monotonic())
        elif task.done and not old.done:
            self._beats.poke(task.zone, task.uid)

    def _log(self, events: Sequence[Event]) -> list[Event]:
        numbered = [replace(event, seq=self._seq + place) for place, event in enumerate(events, 1)]
        self._seq += len(numbered)
        self._events += numbered
        return numbered

    def _by_key(self, item: NewTask, earlier: Sequence[NewTask], index: int) -> Task | None:
        if item.key is None:
            return None
        owner = item.task.owner.uid
        same = (other for other in earlier if (other.task.owner.uid, other.key) == (owner, item.key))
        known = next(((other.fingerprint, other.task) for other in same), None)
        if known is None and (stored := self._keys.get((owner, item.key))) is not None:
            known = stored[0], self._tasks[stored[1]]
        if known is None:
            return None
        if known[0] != item.fingerprint:
            raise IdempotencyKeyReused(
                f"cannot register {item.task.id!r}: the idempotency key {item.key!r} was used for another body",
                extra={"index": index},
            )
        return known[1]

    def _by_members(self, task: Task, earlier: Sequence[NewTask], index: int) -> Task | None:
        triple = (task.zone, task.action, task.id)
        known = [*(other.task for other in earlier), *(live for live in self._live if not live.done)]
        found = next((old for old in known if (old.zone, old.action, old.id) == triple), None)
        names = [] if found is None else differing(found, task)
        if found is not None and names:
            raise Conflict(
                f"cannot register {task.id!r}: it is being watched as task {found.uid} with other members: {', '.join(names)}",
                members=[(f"/{name}", "differs from the task that is being watched") for name in names],
                extra={"index": index, "uid": found.uid},
            )
        return found

    def _delivery(self, delivery_id: str) -> Delivery:
        row = self._deliveries.get(delivery_id)
        if row is None:
            raise NotFound(f"cannot find callback {delivery_id}: there is none with this id, or its task was removed")
        return row

    def _tell(self, tasks: Sequence[Task], events: Sequence[Event]) -> None:
        """Not from inside the change itself: whoever listens may change something in turn."""
        if tasks:
            self._telling += 1
            asyncio.get_running_loop().call_soon(self._told, tasks, events)

    def _told(self, tasks: Sequence[Task], events: Sequence[Event]) -> None:
        self._telling -= 1
        self._handlers.change(tasks, events)
        self._stir()

    def _stir(self) -> None:
        self._woken.set()
        self._stirred.set()


def matches(query: Query, task: Task) -> bool:
    """Whether all filters of the query hold."""
    pairs = (
        (query.done, task.done),
        (query.zone, task.zone),
        (query.action, task.action),
        (query.id, task.id),
        (query.region_task_id, None if task.region_task_id is None else str(task.region_task_id)),
        (query.owner_uid, task.owner.uid),
    )
    return (
        not task.deleted
        and all(wanted is None or wanted == there for wanted, there in pairs)
        and (not query.states or task.state in query.states)
        and (query.created_after is None or task.created_at > query.created_after)
        and (query.before_uid is None or task.uid < query.before_uid)
        and all((task.labels or {}).get(name) == value for name, value in query.labels)
    )
