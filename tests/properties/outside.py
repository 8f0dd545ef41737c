"""The world around the machine: a backend and receivers that do what they are told, and write down what they were asked."""

import asyncio
import sqlite3
import tempfile
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from task_daemon.clock import FakeClock
from task_daemon.core.errors import BackendError, BackendUnreachable, StartRefused, WorkGone
from task_daemon.core.model import Delivery, Progress, Report, Task, Verdict
from task_daemon.core.ports import Action, Answer, Call, Handlers, Unsendable, Zone
from task_daemon.engine.local.engine import LocalEngine
from task_daemon.engine.memory import MemoryEngine
from task_daemon.tracking.admit import Admission
from task_daemon.tracking.deliver import Deliverer
from task_daemon.tracking.manager import Limits, TaskManager
from task_daemon.tracking.notify import Notices
from task_daemon.tracking.poll import Poller
from task_daemon.tracking.zones import ZoneBook
from tests.waiting import eventually

T = TypeVar("T")

ZONES = ("a", "b")
INTERVAL = 10.0
STALL_AFTER = 300.0
SCHEDULE = (0.0, 1.0, 5.0, 60.0)
RETRY_AFTER = 100.0  # seconds a busy receiver asks for
PATIENCE = 60.0  # real seconds the world may take to come to rest

SAYS = (
    *["going on"] * 8,
    "nothing",
    "missing",
    "succeeded",
    "failed",
    "was cancelled",
    "vanished",
    "vanished for certain",
    "nonsense",
    "surprise",
)
STARTS = (*["begun"] * 4, "seen running", "over at once", "refused", "gone", "silent", "surprise")
FORGETS = (*["done"] * 3, "not yet", "silent", "surprise")
ANSWERS = (*["accepts"] * 3, "fails", "missing", "gone", "busy", "drops", "slow", "unsendable", "surprise")


class Saying(Struct, frozen=True):
    """What the backend says of one task whenever it is asked."""

    kind: str = "nothing"
    percent: float = 0.0
    size: int | None = None


class Seen(Struct, frozen=True):
    """One thing the daemon did to the outside: `what` is prepare, start, poll, forget or send."""

    what: str
    uid: str
    kind: str
    wall: float
    monotonic: float
    saying: Saying = Saying()
    delivery: Delivery | None = None
    attempt: int = 0


class Crash(BaseException):
    """The process ends here; on a worker thread, because that is where backends are called."""


class Params(Struct, forbid_unknown_fields=True):
    n: int = 0


class Verb:
    params: type[Struct] = Params
    summary = "Do as the machine says."

    def __init__(self, name: str, outside: "Outside") -> None:
        self.name = name
        self.cancellable = name != "fixed"
        self.prepare = outside.prepare
        self.start = outside.start
        self.cancel = outside.cancel
        self.forget = outside.forget


class Outside:
    """The backend of one zone. It outlives the daemon, as real work does."""

    def __init__(self, clock: FakeClock, see: Callable[[Seen], None], launched: Callable[[str], bool]) -> None:
        self.actions: Mapping[str, Action] = {name: Verb(name, self) for name in ("clone", "fixed")}
        self.silent = False
        self.says: dict[str, Saying] = {}
        self.starts: dict[str, str] = {}
        self.forgets: dict[str, str] = {}
        self.crash_at: str | None = None  # prepare, start, poll, forget, cancel: once
        self.crash: Callable[[], None] = lambda: None
        self.polls = 0
        self.wrong: list[str] = []
        self._clock = clock
        self._see = see
        self._launched = launched

    def admit(self, task: Task) -> dict[str, Any] | None:
        return None

    def prepare(self, task: Task) -> dict[str, Any] | None:
        self._note("prepare", task, "done")
        self._reach("prepare")
        return {"name": task.uid}

    def start(self, task: Task) -> Report | None:
        if not self._launched(task.uid):
            self.wrong.append(f"start of {task.uid} before its name was on disk")
        kind = self.starts.get(task.uid, "begun")
        self._note("start", task, kind)
        self._reach("start")
        match kind:
            case "refused":
                raise StartRefused("no such image")
            case "gone":
                raise WorkGone("it ran, and is gone")
            case "silent":
                raise BackendUnreachable("no answer")
            case "surprise":
                raise RuntimeError("a start that no contract foresees")
            case "seen running":
                return Report(Verdict.GOING_ON, progress=Progress(percent=0.0))
            case "over at once":
                return Report(Verdict.SUCCEEDED)
        return None

    def cancel(self, task: Task) -> None:
        self._reach("cancel")

    def forget(self, task: Task) -> None:
        kind = self.forgets.get(task.uid, "done")
        self._note("forget", task, kind)
        self._reach("forget")
        match kind:
            case "not yet":
                raise BackendError("still busy")
            case "silent":
                raise BackendUnreachable("no answer")
            case "surprise":
                raise RuntimeError("a cleaning that no contract foresees")

    def poll(self, tasks: Sequence[Task]) -> Mapping[str, Report]:
        self.polls += 1
        self._reach("poll")
        sayings = [(task, self.says.get(task.uid, Saying())) for task in tasks]
        if len(tasks) > 1 and any(saying.kind == "surprise" for _, saying in sayings):
            raise RuntimeError("one of them makes it fall over")
        reports: dict[str, Report] = {}
        for task, saying in sayings:
            self._note("poll", task, saying.kind, saying)
            if saying.kind == "surprise":
                raise RuntimeError("this one makes it fall over")
            if saying.kind != "missing":
                reports[task.uid] = report_of(saying)
        return reports

    def events(self, wake: Callable[[], None]) -> None:
        """Announces nothing."""

    def close(self) -> None:
        """Holds nothing open."""

    def _note(self, what: str, task: Task, kind: str, saying: Saying | None = None) -> None:
        if self.silent:
            raise BackendUnreachable("no answer")
        self._see(Seen(what, task.uid, kind, self._clock.now(), self._clock.monotonic(), saying or Saying()))

    def _reach(self, where: str) -> None:
        if self.silent:
            raise BackendUnreachable("no answer")
        if self.crash_at == where:
            self.crash_at = None
            self.crash()
            raise Crash(where)


def report_of(saying: Saying) -> Report:
    progress = Progress(percent=saying.percent)
    match saying.kind:
        case "going on":
            return Report(Verdict.GOING_ON, progress=progress, size=saying.size)
        case "succeeded":
            return Report(Verdict.SUCCEEDED, progress=progress, size=saying.size)
        case "failed":
            return Report(Verdict.FAILED, progress=progress, message="disk full")
        case "was cancelled":
            return Report(Verdict.FAILED, progress=progress, cancelled=True)
        case "vanished" | "vanished for certain":
            return Report(Verdict.VANISHED, certain=saying.kind != "vanished")
        case "nonsense":
            return Report(Verdict.GOING_ON, progress="half")  # type: ignore[arg-type]
    return Report(Verdict.UNKNOWN)


class Receivers:
    """The `Sender`; each target has its mood."""

    def __init__(self, clock: FakeClock, see: Callable[[Seen], None]) -> None:
        self.moods: dict[str, str] = {}
        self.crash_at: str | None = None  # a target: it takes the next delivery, and the daemon dies before it knows
        self.crash: Callable[[], None] = lambda: None
        self._clock = clock
        self._see = see

    async def send(self, delivery: Delivery, attempt: int, now: float) -> Answer:
        kind = self.moods.get(delivery.target, "accepts")
        if self.crash_at == delivery.target:
            self.crash_at, kind = None, "crash"
        self._see(Seen("send", delivery.uid, kind, now, self._clock.monotonic(), delivery=delivery, attempt=attempt))
        match kind:
            case "crash":
                self.crash()
                await asyncio.Event().wait()
            case "drops":
                raise ConnectionResetError("connection reset")
            case "slow":
                raise TimeoutError
            case "unsendable":
                raise Unsendable("no such key")
            case "surprise":
                raise RuntimeError("a sender that no contract foresees")
            case "busy":
                return Answer(429, 0.1, retry_after=RETRY_AFTER)
        return Answer({"accepts": 204, "fails": 500, "missing": 404, "gone": 410}[kind], 0.1)

    async def close(self) -> None:
        """Holds nothing open."""


def region(task: Task, outcome: str, error: str | None) -> Sequence[Call]:
    """Two calls for an end, one for a size."""
    calls = [Call("PATCH", f"/tasks/{task.region_task_id}", {"outcome": outcome, "error": error})]
    return calls if outcome == "size" else [*calls, Call("POST", "/done", {})]


def lane(url: str) -> str:
    return url.rpartition("/")[0]


class World:
    """One workspace and the daemons that serve it one after the other. Synchronous: it runs an event loop of its own."""

    def __init__(self, durable: bool) -> None:
        self.clock = FakeClock()
        self.log: list[Seen] = []
        self.fatal: list[BaseException] = []
        self.outsides = {zone: Outside(self.clock, self.log.append, self.launched) for zone in ZONES}
        self.receivers = Receivers(self.clock, self.log.append)
        self._loop = asyncio.new_event_loop()
        self._durable = durable
        self._directory = tempfile.TemporaryDirectory(prefix="tdk-")
        self.path = Path(self._directory.name)
        self.engine: LocalEngine | MemoryEngine = self._make()
        self.run(self._open())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(asyncio.wait_for(work, PATIENCE))

    def settle(self) -> int:
        """Let everything happen that is due now; how often the daemon crashed (and came back) on the way."""
        crashes = 0
        while self.run(self._idle_or_crash()):
            self.crash()
            crashes += 1
        return crashes

    def restart(self) -> None:
        """A clean stop and a start."""
        self.run(self.engine.close())
        if self._durable:
            self.engine = self._make()
        self.run(self._open())

    def crash(self) -> None:
        """The daemon dies where it stands, and comes back. Only a durable one does."""
        self.run(self._crash())

    def end(self) -> None:
        self.run(self.engine.close())
        self._loop.close()
        self._directory.cleanup()

    def launched(self, uid: str) -> bool:
        """Whether the intent to start a task is on the disk; looked at with a connection of its own. Any thread."""
        if not self._durable:
            task = self.engine.get(uid)
            return task is not None and task.launched
        connection = sqlite3.connect(self.path / "store.db")
        try:
            (body,) = connection.execute("SELECT body FROM task WHERE uid = ?", (uid,)).fetchone()
        finally:
            connection.close()
        return msgspec.json.decode(body, type=Task).launched

    def stored(self, uid: str) -> Task | None:
        """The task as it lies on the disk, if there is one."""
        engine = self.engine
        return self.run(engine.store.read(lambda look: look.load(uid))) if isinstance(engine, LocalEngine) else None

    def _make(self) -> LocalEngine | MemoryEngine:
        if not self._durable:
            return MemoryEngine(self.clock)
        return LocalEngine(self.path, self.clock, workers=2, stuck_after=lambda _: 1e9)

    async def _open(self) -> None:
        crashed = self._crashed = asyncio.Event()
        loop = asyncio.get_running_loop()

        def crash() -> None:
            loop.call_soon_threadsafe(crashed.set)

        self.receivers.crash = crash
        for outside in self.outsides.values():
            outside.crash = crash
        zones = {name: Zone(name, "test", outside, INTERVAL, 5.0, STALL_AFTER) for name, outside in self.outsides.items()}
        notices, book = Notices(lane, region), ZoneBook(zones.values(), self.clock)
        self.manager = TaskManager(
            self.engine, zones, Admission(zones, lane, [], self.clock), notices, book, self.clock, Limits()
        )
        poller = Poller(self.engine, zones, notices, book, self.clock)
        deliverer = Deliverer(self.receivers, self.clock, SCHEDULE, chance=lambda: 0.5)
        handlers = Handlers(poller, deliverer, poller.expire, self.manager.changed, self.fatal.append)
        await self.engine.open(dict.fromkeys(ZONES, INTERVAL), handlers)

    async def _idle_or_crash(self) -> bool:
        idle = asyncio.ensure_future(self.engine.idle())
        crashed = asyncio.ensure_future(self._crashed.wait())
        await asyncio.wait({idle, crashed}, return_when=asyncio.FIRST_COMPLETED)
        for waiting in (idle, crashed):
            waiting.cancel()
        await asyncio.gather(idle, crashed, return_exceptions=True)
        return self._crashed.is_set()

    async def _crash(self) -> None:
        if isinstance(self.engine, LocalEngine):
            await abandon(self.engine)
        self.engine = self._make()
        await self._open()


async def abandon(engine: LocalEngine) -> None:
    """Leave an engine as a SIGKILL would: nothing more is written, no progress is saved, nothing is marked as clean."""
    engine.store._closed = True
    engine._closing = True
    engine._courier._closed = True
    engine._ledger.beats.invalidate()
    doomed = [engine._timing, engine._loading, *engine._beside, *engine._courier._under_way]
    for task in doomed:
        if task is not None:
            task.cancel()
    await asyncio.gather(*(task for task in doomed if task is not None), return_exceptions=True)
    engine._rounds.workers.close()
    await asyncio.to_thread(eventually, "the worker threads have ended", lambda: engine._rounds.workers.unfinished() == 0)
    engine._rounds._expirer.close(10)
    engine.store._operations.put(None)
    await asyncio.to_thread(engine.store._writer.join, 10)
    await asyncio.to_thread(engine.store._reader.close, 10)
    engine.store._reading.close()
    engine.store.connection.close()
