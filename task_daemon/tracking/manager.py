"""TaskManager: everything the API can ask for. Lives on the event loop."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from task_daemon.core import transitions
from task_daemon.core.errors import (
    AlreadyFinished,
    Gone,
    InvalidBody,
    NotCancellable,
    NotDone,
    NotFound,
    QueueFull,
    QuotaExceeded,
    Refusal,
    UnknownAction,
    UnknownZone,
)
from task_daemon.core.measures import Measures
from task_daemon.core.model import FINAL, Change, Delivery, Event, Mode, Owner, Query, State, Task
from task_daemon.core.ports import Added, Backlog, Clock, Engine, NewTask, Page, Tell, Zone
from task_daemon.core.view import Shown, fresh_view, task_view
from task_daemon.tracking.admit import Admission, Registration
from task_daemon.tracking.feed import Feed, Follower
from task_daemon.tracking.notify import Notices
from task_daemon.tracking.why import explained
from task_daemon.tracking.zones import ZoneBook

NO_CALLBACKS = {"pending": 0, "delivered": 0, "dead": 0}
ENDS = frozenset(f"task.{state.value}" for state in FINAL)
CHANGE_TRIES = 5  # a change that loses a race against a poll is made again on the newer task


class Limits(Struct, frozen=True):
    live_tasks: int = 1_000_000
    live_tasks_per_uid: int = 100_000


class TaskManager:
    """What the API talks to; knows neither HTTP nor SQL. All methods belong to the event loop."""

    def __init__(
        self,
        engine: Engine,
        zones: Mapping[str, Zone],
        admission: Admission,
        notices: Notices,
        book: ZoneBook,
        clock: Clock,
        limits: Limits,
    ) -> None:
        self._engine = engine
        self._zones = zones
        self._admission = admission
        self._notices = notices
        self._book = book
        self._clock = clock
        self._limits = limits
        self._feed = Feed(engine, clock)
        self._waiters: dict[str, list[asyncio.Event]] = {}

    # ------------------------------------------------------------------ registering

    async def register(
        self,
        registrations: Sequence[Registration],
        owner: Owner,
        key: str | None = None,
        meanwhile: Callable[[Sequence[Task]], Tell | None] | None = None,
    ) -> list[Added]:
        """Store all or none, durable before the return (I1). A replay gives the task that is there already. `meanwhile` is called
        with the tasks while they are being stored: none of them may be shown before it is known that all are. What it gives
        back may be called before the return, when that is known (`Engine.add`).

        Raises InvalidBody, UnknownZone, UnknownAction (with `extra["index"]` in a batch), Conflict, IdempotencyKeyReused,
        QuotaExceeded, QueueFull, StoreFull, OutcomeUnknown.
        """
        tasks = self.validate(registrations, owner)
        if key is None:
            new = [NewTask(task) for task in tasks]
        else:
            prints = [registration.fingerprint() for registration in registrations]
            new = [NewTask(task, f"{key}#{index}", prints[index]) for index, task in enumerate(tasks)]
        try:
            self._check_limits(len(new), owner)
        except (QueueFull, QuotaExceeded):  # what is there already needs no room
            fresh = len(new) - await self._engine.known(new)
            if fresh:
                self._check_limits(fresh, owner)
        return await self._engine.add(new, None if meanwhile is None else partial(meanwhile, tasks))

    def validate(self, registrations: Sequence[Registration], owner: Owner) -> list[Task]:
        """The tasks that `register` would make, without storing them."""
        tasks: list[Task] = []
        now = self._clock.now()
        try:
            for registration in registrations:
                tasks.append(self._admission.task(registration, owner, now))  # noqa: PERF401 - the place of a wrong one counts
        except (InvalidBody, UnknownZone, UnknownAction) as error:
            raise _at_index(error, len(tasks) if len(registrations) > 1 else None) from None
        return tasks

    def _check_limits(self, count: int, owner: Owner) -> None:
        live = self._engine.live()
        if live + count > self._limits.live_tasks:
            text = f"cannot register: {live} tasks are live, and at most {self._limits.live_tasks} may be"
            raise QueueFull(text, retry_after=10.0)
        mine = self._engine.live_of(owner.uid)
        if mine + count > self._limits.live_tasks_per_uid:
            text = (
                f"cannot register: user {owner.uid} has {mine} live tasks, and at most {self._limits.live_tasks_per_uid} may be"
            )
            raise QuotaExceeded(text, retry_after=10.0)

    # ------------------------------------------------------------------ reading

    async def get(self, uid: str) -> Task:
        """Raises NotFound, Gone."""
        task = self._engine.get(uid)
        if task is None:
            task = await self._engine.load(uid)
        if task is None:
            raise NotFound(f"cannot show task {uid}: no task of that uid (its retention may be over)")
        if task.deleted:
            raise Gone(f"cannot show task {uid}: it was deleted")
        return task

    async def find(self, query: Query) -> Page:
        return await self._engine.find(query)

    async def wait(self, uid: str, seconds: float, revision: int | None = None) -> Task:
        """The task when it is done, or when its revision is not `revision` any more (if given), or when time is up."""
        end = self._clock.monotonic() + seconds
        woken = asyncio.Event()
        self._waiters.setdefault(uid, []).append(woken)
        if revision is not None:
            self._feed.watch(uid)
        try:
            while True:
                woken.clear()  # before the look: what happens after it wakes us
                task = await self.get(uid)
                news = revision is not None and task.revision != revision
                if task.done or news or self._feed.stopping or self._clock.monotonic() >= end:
                    return task
                await self._clock.sleep(end, woken)
        finally:
            self._waiters[uid].remove(woken)
            if not self._waiters[uid]:
                del self._waiters[uid]
            if revision is not None:
                self._feed.unwatch(uid)

    def changed(self, tasks: Sequence[Task], events: Sequence[Event]) -> None:
        """`Handlers.change` of the engine: wake whoever waits for these tasks, or follows the feed."""
        if self._waiters:
            for task in tasks:
                for woken in self._waiters.get(task.uid, ()):
                    woken.set()
        self._count(tasks, events)
        self._feed.add(tasks, events)

    def _count(self, tasks: Sequence[Task], events: Sequence[Event]) -> None:
        measures, types = self._engine.measures, [event.type for event in events]
        for each in types:
            measures.events[each] += 1
        if ENDS.isdisjoint(types):
            return
        ended = {event.uid for event in events if event.type in ENDS}
        for task in tasks:
            if task.uid in ended:
                measures.ended[task.zone, task.action, task.state.value] += 1
                ended.discard(task.uid)

    def stop_waiting(self) -> None:
        """The daemon is stopping: everybody who waits gets what is known now."""
        self._feed.stop()
        for waiters in self._waiters.values():
            for woken in waiters:
                woken.set()

    async def view(self, task: Task) -> Shown:
        """The task of the REST contract."""
        return (await self.views([task]))[0]

    async def views(self, tasks: Sequence[Task]) -> list[Shown]:
        counts = await self._engine.callback_counts([task.uid for task in tasks])
        return [self._view(task, counts.get(task.uid, NO_CALLBACKS)) for task in tasks]

    def _view(self, task: Task, callbacks: Mapping[str, int]) -> Shown:
        times = self._engine.times(task)
        return task_view(
            task,
            cancellable=self._cancellable(task),
            last_polled_at=times.last_polled_at,
            next_poll_at=times.next_poll_at,
            unreachable=not task.done and self._book.unreachable(task.zone),
            callbacks=callbacks,
        )

    def fresh(self, tasks: Sequence[Task]) -> tuple[list[Shown], float]:
        """Views of tasks as they were registered a moment ago, and the `retry_after` of the first."""
        return self._fresh(tasks, lambda task: self._engine.times(task).next_poll_at)

    def coming(self, tasks: Sequence[Task]) -> tuple[list[Shown], float]:
        """The same for tasks that are about to be stored."""
        if len(tasks) == 1:
            return self._fresh(tasks, lambda task: self._engine.first_poll(task, 1))
        zones = Counter([task.zone for task in tasks])
        return self._fresh(tasks, lambda task: self._engine.first_poll(task, zones[task.zone]))

    def _fresh(self, tasks: Sequence[Task], next_poll_at: Callable[[Task], float | None]) -> tuple[list[Shown], float]:
        """Nobody can have been told anything yet, and tasks that are polled together come up together."""
        known: dict[object, tuple[float | None, bool]] = {}
        views: list[Shown] = []
        for task in tasks:
            zone = self._zones[task.zone]
            place = task.uid if zone.one_by_one else (task.zone, task.poll_interval)
            if place not in known:
                known[place] = next_poll_at(task), self._book.unreachable(task.zone)
            at, unreachable = known[place]
            view = fresh_view(
                task,
                cancellable=task.mode is Mode.RUN and self._cancellable(task),
                next_poll_at=at,
                unreachable=unreachable,
                callbacks=NO_CALLBACKS,
            )
            views.append(view)
        first, _ = next(iter(known.values()))
        return views, self._until(first)

    def retry_after(self, task: Task) -> float:
        """Seconds after which asking again is worth it: the next poll."""
        return self._until(self._engine.times(task).next_poll_at)

    def _until(self, next_poll_at: float | None) -> float:
        return 1.0 if next_poll_at is None else max(1.0, next_poll_at - self._clock.now())

    # ------------------------------------------------------------------ changing

    async def cancel(self, uid: str, stop_tracking: bool = False) -> Task:
        """Raises AlreadyFinished, NotCancellable, NotFound, Gone. The returned task is `cancelled`, or `cancelling`."""

        def step(task: Task) -> Change | None:
            running = task.launched or task.state is not State.QUEUED
            if task.mode is Mode.RUN and running and not task.done and not self._cancellable(task):
                raise NotCancellable(f"cannot cancel task {uid}: action {task.action!r} cannot be cancelled once it runs")
            return transitions.cancel(task, self._clock.now(), stop_tracking)

        task = await self._change(uid, step)
        if not task.done:
            self._engine.poke(task.zone, uid)
        return task

    async def resolve(self, uid: str, state: State, reason: str) -> Task:
        """Raises NotLost, NotFound, Gone."""
        return await self._change(uid, lambda task: transitions.resolve(task, state, reason, self._clock.now()))

    async def delete(self, uid: str) -> None:
        """From now on reads give 410. Raises NotDone while the task is live, NotFound, Gone."""

        def step(task: Task) -> Change | None:
            if not task.done:
                text = f"cannot delete task {uid}: it is {task.state.value}; only an ended task can be deleted, cancel it first"
                raise NotDone(text)
            return Change(before=task, task=replace(task, deleted=True, params=None, labels=None, extra=None), save=True)

        await self._change(uid, step)

    async def poll_now(self, uid: str) -> Task:
        """Look now: the registrant knows that something happened. Raises AlreadyFinished, NotFound, Gone."""
        task = await self.get(uid)
        if task.done:
            raise AlreadyFinished(f"cannot poll task {uid}: it has {task.state.value} already")
        self._engine.poke(task.zone, uid)
        return task

    async def _change(self, uid: str, step: Callable[[Task], Change | None]) -> Task:
        for _ in range(CHANGE_TRIES):
            task = await self.get(uid)
            change = step(task)
            if change is None:
                return task
            if (await self._engine.change([self._notices.attach(change)]))[0]:
                return change.task
        raise AssertionError(f"task {uid} changed {CHANGE_TRIES} times under our hands")

    # ------------------------------------------------------------------ events and callbacks

    async def events(self, after: int, limit: int, uid: str | None = None, wait: float = 0.0) -> list[Event]:
        """Events above `after`, oldest first; waits up to `wait` seconds for the first one. Raises CursorExpired."""
        if uid is not None:
            await self.get(uid)
        with self._feed.follow(after, uid) as follower:
            return (await follower.next(wait, limit))[0]

    def follow(self, after: int, uid: str | None = None, progress: bool = False) -> Follower:
        """Events above `after` as they come, of one task or of all; with `progress` the tasks that have moved, too."""
        return self._feed.follow(after, uid, progress)

    async def cursor(self) -> int:
        """Sequence of the newest event, 0 if there was none yet."""
        return (await self._engine.find(Query(limit=1))).cursor

    async def callbacks_of(self, uid: str) -> list[Delivery]:
        await self.get(uid)
        return await self._engine.deliveries(uid=uid)

    async def callbacks(self, state: str | None, before: str | None, limit: int, owner_uid: int | None = None) -> list[Delivery]:
        return await self._engine.deliveries(state=state, before=before, limit=limit, owner_uid=owner_uid)

    async def callback(self, delivery_id: str) -> Delivery:
        """Raises NotFound."""
        delivery = await self._engine.delivery(delivery_id)
        if delivery is None:
            raise NotFound(f"cannot show callback {delivery_id}: no callback of that id")
        return delivery

    async def replay(self, delivery_id: str) -> Delivery:
        return await self._engine.redeliver(delivery_id)

    async def acknowledge(self, delivery_id: str) -> Delivery:
        return await self._engine.acknowledge(delivery_id)

    def heard_of(self, owner_uid: int) -> None:
        """A request came from this user: its receivers are probably up, so retries that wait go out now."""
        self._engine.wake_owner(owner_uid)

    # ------------------------------------------------------------------ zones, actions, why

    def zones(self) -> list[dict[str, Any]]:
        paused = self._engine.paused()
        live: dict[str, int] = {}
        for (zone, _, _), count in self._engine.tally().items():
            live[zone] = live.get(zone, 0) + count
        timing = self._engine.status()["zones"]
        return [
            self._book.view(name, name in paused, live.get(name, 0), timing.get(name, {}).get("next_poll_at"))
            for name in sorted(self._zones)
        ]

    async def pause(self, zone: str, paused: bool) -> dict[str, Any]:
        """Raises NotFound."""
        if zone not in self._zones:
            known = ", ".join(sorted(self._zones))
            raise NotFound(f"cannot {'pause' if paused else 'resume'} zone {zone!r}: not configured; zones: {known}")
        await self._engine.pause(zone, paused)
        return next(view for view in self.zones() if view["zone"] == zone)

    def actions(self) -> list[dict[str, Any]]:
        """One entry for each action of each kind of backend, with the zones that offer it."""
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for zone in sorted(self._zones.values(), key=lambda z: z.name):
            for name, action in sorted(zone.backend.actions.items()):
                entry = found.setdefault(
                    (zone.kind, name),
                    {
                        "action": name,
                        "backend": zone.kind,
                        "summary": action.summary,
                        "cancellable": action.cancellable,
                        "params": msgspec.json.schema(action.params),
                        "zones": [],
                    },
                )
                entry["zones"].append(zone.name)
        return list(found.values())

    async def explain(self, uid: str) -> dict[str, Any]:
        """Why a task is where it is, and what happens next, when."""
        task = await self.get(uid)
        zone = next((view for view in self.zones() if view["zone"] == task.zone), None)
        deliveries = await self._engine.deliveries(uid=uid)
        held = self._engine.status()["outbox"]["held"]
        return explained(task, zone, self._engine.times(task), deliveries, held, self._clock.now())

    async def check_store(self) -> dict[str, Any]:
        """Whether the store is sound; `ok` is None when nothing was found wrong but time was up."""
        began = self._clock.monotonic()
        check = await self._engine.check()
        return {
            "ok": False if check.findings else True if check.complete else None,
            "complete": check.complete,
            "findings": list(check.findings),
            "seconds": round(self._clock.monotonic() - began, 3),
        }

    def measures(self) -> Measures:
        """What was counted since the start."""
        return self._engine.measures

    def now(self) -> float:
        """Wall time."""
        return self._clock.now()

    async def backlog(self) -> Backlog:
        return await self._engine.backlog()

    def tally(self) -> Mapping[tuple[str, str, str], int]:
        return self._engine.tally()

    def status(self) -> Mapping[str, Any]:
        return self._engine.status()

    def _cancellable(self, task: Task) -> bool:
        if task.mode is Mode.TRACK:
            return False  # only the watching can be stopped
        zone = self._zones.get(task.zone)
        action = None if zone is None else zone.backend.actions.get(task.action)
        return action is not None and action.cancellable


def _at_index(error: Refusal, index: int | None) -> Refusal:
    if index is None:
        return error
    members = [(f"/tasks/{index}{pointer}", text) for pointer, text in error.members]
    return type(error)(f"task {index} of the batch: {error.detail}", members=members, extra={"index": index})
