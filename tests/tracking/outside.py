"""The tracking room with everything around it real but the outside: a backend in the hands of the test."""

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from msgspec import Struct

from task_daemon.clock import FakeClock
from task_daemon.core.errors import BackendUnreachable
from task_daemon.core.model import (
    Attempt,
    CallbackTarget,
    Delivery,
    Draft,
    Event,
    Owner,
    Progress,
    Query,
    Report,
    State,
    Task,
    Verdict,
)
from task_daemon.core.ports import Action, Backend, Delivered, Handlers, Later, Outcome, Refused, Zone
from task_daemon.engine.local.engine import LocalEngine
from task_daemon.engine.memory import MemoryEngine
from task_daemon.tracking.admit import Admission, Registration
from task_daemon.tracking.manager import Limits, TaskManager
from task_daemon.tracking.notify import Notices
from task_daemon.tracking.poll import Poller
from task_daemon.tracking.zones import ZoneBook

R = TypeVar("R")

OWNER = Owner(1000, 1000, 4711)
INTERVAL = 10.0
GOING_ON = Report(Verdict.GOING_ON)
SUCCEEDED = Report(Verdict.SUCCEEDED)
VANISHED = Report(Verdict.VANISHED)
SILENT = BackendUnreachable("no answer within 5 s")
HOOK = "http://127.0.0.1:9/hook"
TOLD = CallbackTarget(url=HOOK)


def lane(url: str) -> str:
    if not url.startswith("http://"):
        raise ValueError("must begin with http://")
    return "/".join(url.split("/")[:3])


class Part(Struct, forbid_unknown_fields=True):
    name: str


class Params(Struct, forbid_unknown_fields=True):
    target: str = ""
    parts: list[Part] = []


class Verb:
    """An action of `Outside`; `fixed` cannot be cancelled."""

    params: type[Struct] = Params

    def __init__(self, name: str, outside: "Outside") -> None:
        self.name = name
        self.cancellable = name != "fixed"
        self.summary = f"Do {name}."
        self._outside = outside

    def prepare(self, task: Task) -> dict[str, Any] | None:
        return self._outside.prepare(task)

    def start(self, task: Task) -> Report | None:
        self._outside.starts.append(task.id)
        return self._outside.start(task)

    def cancel(self, task: Task) -> None:
        self._outside.cancels.append(task.id)
        self._outside.cancel(task)

    def forget(self, task: Task) -> None:
        self._outside.forgets.append(task.id)
        self._outside.forget(task)


class Outside:
    """A backend whose every answer a test may replace; it writes down what it is asked."""

    def __init__(self, *names: str) -> None:
        self.actions: Mapping[str, Action] = {name: Verb(name, self) for name in names or ("backup", "fixed")}
        self.polls: list[list[str]] = []
        self.starts: list[str] = []
        self.cancels: list[str] = []
        self.forgets: list[str] = []
        self.prepare: Callable[[Task], dict[str, Any] | None] = lambda task: None
        self.start: Callable[[Task], Report | None] = lambda task: GOING_ON
        self.cancel: Callable[[Task], None] = lambda task: None
        self.forget: Callable[[Task], None] = lambda task: None
        self.report: Callable[[Task], Any] = lambda task: GOING_ON
        self.answer: Callable[[Sequence[Task]], Any] = self.one_by_one

    def admit(self, task: Task) -> dict[str, Any] | None:
        return {"seen": task.job} if task.job else None

    def poll(self, tasks: Sequence[Task]) -> Mapping[str, Report]:
        self.polls.append(sorted(task.id for task in tasks))
        answer: Mapping[str, Report] = self.answer(tasks)
        return answer

    def one_by_one(self, tasks: Sequence[Task]) -> dict[str, Any]:
        return {task.uid: self.report(task) for task in tasks}

    def events(self, wake: Callable[[], None]) -> None:
        """Announces nothing."""

    def close(self) -> None:
        """Holds nothing open."""


def fails_with(error: Exception) -> Callable[[Any], Any]:
    def call(_: Any) -> Any:
        raise error

    return call


def by_id(answers: Mapping[str, Any], other: Any = GOING_ON) -> Callable[[Task], Any]:
    """Answers by the task's id; an exception is raised."""

    def call(task: Task) -> Any:
        answer = answers.get(task.id, other)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return call


class World:
    """One daemon's tracking room. Without a `directory` its engine is the one in memory."""

    def __init__(self, clock: FakeClock, directory: Path | None, backends: Mapping[str, Backend], limits: Limits) -> None:
        self.clock = clock
        self.receiver_up = True
        self.refused = False  # whether the receiver wants no callback at all, ever
        self.fatal: list[BaseException] = []
        self.expired: list[str] = []
        self.engine = MemoryEngine(clock) if directory is None else LocalEngine(directory, clock, stuck_after=lambda _: 600.0)
        self.zones = {
            name: Zone(name, "test", backend, poll_interval=INTERVAL, poll_timeout=5.0, labels={"rack": "7"})
            for name, backend in backends.items()
        }
        notices = Notices(lane, None)
        self.book = ZoneBook(self.zones.values(), clock)
        self.admission = Admission(self.zones, lane, ["default"], clock)
        self.manager = TaskManager(self.engine, self.zones, self.admission, notices, self.book, clock, limits)
        self.poller = Poller(self.engine, self.zones, notices, self.book, clock)

    async def open(self) -> None:
        handlers = Handlers(self.poller, self._deliver, self.poller.expire, self.manager.changed, self.fatal.append)
        await self.engine.open({name: zone.poll_interval for name, zone in self.zones.items()}, handlers)
        await self.engine.idle()

    async def _deliver(self, delivery: Delivery) -> Outcome:
        at = self.clock.now()
        if self.refused:
            return Refused(Attempt(at=at, status=410, error="answered 410"))
        return Delivered(Attempt(at=at, status=200)) if self.receiver_up else Later(Attempt(at=at, error="down"), 3600.0)

    async def register(self, id: str = "d", **members: Any) -> Task:  # noqa: A002 - the member's name
        """A new task, not polled yet."""
        draft = Draft(**({"id": id, "action": "backup", "zone": "z1"} | members))
        (added,) = await self.manager.register([Registration(draft)], OWNER)
        return added.task

    async def run(self, id: str = "d", **members: Any) -> Task:  # noqa: A002 - the member's name
        """A new task that the backend is to start."""
        return await self.register(id, **({"params": {}} | members))

    async def beat(self, times: int = 1, besides: Collection[str] = ()) -> None:
        """So many polls of each zone (one that backs off is polled when its time has come)."""
        for _ in range(times):
            await self.pass_(INTERVAL, besides)

    async def pass_(self, seconds: float, besides: Collection[str] = ()) -> None:
        self.clock.advance(seconds)
        await self.engine.idle(besides)

    async def events(self, uid: str) -> list[Event]:
        return await self.engine.events(0, 1000, uid)

    async def types(self, uid: str) -> list[str]:
        return [event.type.removeprefix("task.") for event in await self.events(uid)]

    def zone(self, name: str = "z1") -> dict[str, Any]:
        return next(view for view in self.manager.zones() if view["zone"] == name)

    def errors(self, name: str = "z1") -> list[str]:
        return [entry["error"] for entry in self.zone(name)["errors"]]


Make = Callable[..., Coroutine[Any, Any, World]]


def wanted(id: str = "d", **members: Any) -> Registration:  # noqa: A002 - the member's name
    return Registration(Draft(**({"id": id, "action": "backup", "zone": "z1"} | members)))


def at(percent: float) -> Callable[[Task], Report]:
    return lambda _: Report(Verdict.GOING_ON, Progress(percent=percent))


async def ended(world: World, outside: Outside, name: str = "d", **members: Any) -> Task:
    task = await world.register(name, **members)
    outside.report = by_id({name: SUCCEEDED})
    await world.beat()
    return await world.manager.get(task.uid)


async def lost(world: World, outside: Outside) -> Task:
    task = await world.register()
    await world.beat()
    outside.report = lambda _: Report(Verdict.VANISHED, certain=True)
    await world.beat()
    return await world.manager.get(task.uid)


async def stored(world: World) -> list[str]:
    return sorted(task.id for task in (await world.manager.find(Query())).tasks)


async def state(world: World, task: Task) -> State:
    return (await world.manager.get(task.uid)).state


async def turns(count: int = 20) -> None:
    """Let everything that can go on in the event loop go on."""
    for _ in range(count):
        await asyncio.sleep(0)


async def waited(world: World, pending: "asyncio.Future[R]", step: float = 1.0) -> R:
    """The outcome of something that waits for the clock."""
    end = time.monotonic() + 20
    while not pending.done():
        assert time.monotonic() < end, "no answer"
        await turns()
        world.clock.advance(step)
    return await pending
