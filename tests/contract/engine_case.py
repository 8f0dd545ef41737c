"""An engine under test with handlers that write down what they are called with, and a clock moved by hand."""

import asyncio
import threading
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from task_daemon.clock import FakeClock
from task_daemon.core import transitions
from task_daemon.core.model import Attempt, Change, Delivery, Event, Report, Task, Verdict
from task_daemon.core.ports import Again, Beat, Delivered, Handlers, Idle, Later, NewTask, Outcome, Refused
from task_daemon.engine.local.engine import LocalEngine
from task_daemon.engine.memory import MemoryEngine
from tests.making import a_task

AnEngine = LocalEngine | MemoryEngine
ENGINES = ("local", "memory")
INTERVALS = {"z1": 10.0, "z2": 10.0}


class Case:
    def __init__(self, kind: str, path: Path, clock: FakeClock) -> None:
        self.kind = kind
        self.path = path
        self.clock = clock
        self.intervals = dict(INTERVALS)
        self.polls: list[tuple[str, list[str], float]] = []  # zone, ids, monotonic
        self.acts: dict[str, Callable[[Beat], Again | Idle]] = {}
        self.sent: list[Delivery] = []
        self.answers: Callable[[Delivery], Outcome] = self.accepted
        self.gates: dict[str, asyncio.Future[None]] = {}  # by id or target: the receiver does not answer before this is set
        self.told: list[tuple[Sequence[Task], Sequence[Event]]] = []
        self.expired: list[str] = []
        self.fatal: list[BaseException] = []
        self.hold = threading.Event()
        self.engine: AnEngine = self._make()

    def _make(self) -> AnEngine:
        if self.kind == "memory":
            return MemoryEngine(self.clock)
        return LocalEngine(self.path, self.clock, stuck_after=lambda _zone: 60.0)

    @property
    def handlers(self) -> Handlers:
        return Handlers(self._poll, self._deliver, self._expire, self._change, self.fatal.append)

    async def open(self) -> None:
        await self.engine.open(self.intervals, self.handlers)
        await self.engine.idle()

    async def reopen(self) -> None:
        await self.engine.close()
        if self.kind == "local":
            self.engine = self._make()
        await self.open()

    async def advance(self, seconds: float, besides: Collection[str] = ()) -> None:
        self.clock.advance(seconds)
        await self.engine.idle(besides)

    async def register(self, *tasks: Task) -> list[Task]:
        added = await self.engine.add([NewTask(task) for task in tasks])
        await self.engine.idle()
        return [one.task for one in added]

    async def end(self, task: Task, *deliveries: Delivery) -> Task:
        """The task succeeds, with these deliveries."""
        change = finished(self.engine.get(task.uid) or task, self.clock.now(), *deliveries)
        assert await self.engine.change([change]) == [True]
        await self.engine.idle()
        return change.task

    def sent_ids(self) -> list[str]:
        return [row.id for row in self.sent]

    def polled(self, zone: str) -> list[list[str]]:
        return [ids for name, ids, _ in self.polls if name == zone]

    def accepted(self, row: Delivery) -> Outcome:
        return Delivered(self.attempt(200))

    def down(self, row: Delivery, seconds: float = 5.0) -> Outcome:
        return Later(self.attempt(503), seconds)

    def refused(self, row: Delivery) -> Outcome:
        return Refused(self.attempt(410))

    def attempt(self, status: int) -> Attempt:
        return Attempt(at=self.clock.now(), status=status)

    def _poll(self, beat: Beat) -> Again | Idle:
        self.polls.append((beat.zone, sorted(task.id for task in self.engine.batch(beat)), self.clock.monotonic()))
        act = self.acts.get(beat.zone)
        return Again() if act is None else act(beat)

    async def _deliver(self, row: Delivery) -> Outcome:
        self.sent.append(row)
        gate = self.gates.get(row.id) or self.gates.get(row.target)
        if gate is not None:
            await gate
        return self.answers(row)

    def _expire(self, tasks: Sequence[Task]) -> None:
        self.expired += [task.id for task in tasks]
        self.engine.report(None, [change for task in tasks if (change := transitions.expire(task, self.clock.now()))])

    def _change(self, tasks: Sequence[Task], events: Sequence[Event]) -> None:
        self.told.append((tasks, events))


def moved(task: Task, now: float, report: Report) -> Change:
    change = transitions.apply(task, report, now)
    assert change is not None
    return change


def running(task: Task, now: float) -> Change:
    return moved(task, now, Report(Verdict.GOING_ON))


def finished(task: Task, now: float, *deliveries: Delivery) -> Change:
    change = moved(task, now, Report(Verdict.SUCCEEDED))
    return Change(change.before, change.task, change.events, deliveries)


def progress(task: Task, **fields: Any) -> Change:
    """A change that stays in memory."""
    from msgspec.structs import replace

    return Change(before=task, task=replace(task, revision=task.revision + 1, **fields))


def a_delivery(task: Task, part: int = 0, **members: Any) -> Delivery:
    """A callback for the next event of the task, as `tracking` makes them."""
    task_seq = members.pop("task_seq", task.task_seq + 1)
    defaults: dict[str, Any] = {
        "id": f"{task.uid}-{task_seq}-{part}",
        "uid": task.uid,
        "task_seq": task_seq,
        "part": part,
        "type": "task.succeeded",
        "via": "webhook",
        "target": "http://one",
        "method": "POST",
        "url": "http://one/told",
        "body": b'{"task": {}}',
        "owner_uid": task.owner.uid,
        "created_at": task.created_at,
        "next_at": task.created_at,
    }
    return Delivery(**(defaults | members))


__all__ = ["ENGINES", "AnEngine", "Case", "a_delivery", "a_task", "finished", "moved", "progress", "running"]
