"""A daemon without a main: the real manager, the in-memory engine, one simulated zone, and whoever a test wants to be."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct
from tornado.httpclient import AsyncHTTPClient
from tornado.platform.asyncio import AsyncIOLoop
from tornado.web import Application

from task_daemon.api.access import Access, Members, Peer
from task_daemon.api.app import make_app
from task_daemon.api.context import Api, Daemon, Phase
from task_daemon.backends.simulated import Job, SimulatedBackend, SimulatedSettings
from task_daemon.clock import FakeClock
from task_daemon.core.model import Attempt, Delivery
from task_daemon.core.ports import Call, Delivered, Handlers, Later, Outcome, Zone, ZoneContext
from task_daemon.engine.memory import MemoryEngine
from task_daemon.tracking.admit import Admission
from task_daemon.tracking.manager import Limits, TaskManager
from task_daemon.tracking.notify import Notices
from task_daemon.tracking.poll import Poller
from task_daemon.tracking.zones import ZoneBook
from tests.waiting import PATIENCE

ROOT = Peer(uid=0, gid=0, pid=1)
OPERATOR = Peer(uid=1001, gid=1001, pid=2, groups=(70,))
OTHER_OPERATOR = Peer(uid=1002, gid=1002, pid=3, groups=(70,))
READER = Peer(uid=1003, gid=1003, pid=4)
READING_OPERATOR = Peer(uid=1003, gid=1003, pid=6, groups=(70,))
STRANGER = Peer(uid=1004, gid=1004, pid=5)

VERSION = "1.2.3"
SCENARIO = [Job(id="quick*", finish_after=1.0), Job(id="gone*", vanish_at=10.0), Job(finish_after=1000.0)]


def lane(url: str) -> str:
    if not url.startswith("http://"):
        raise ValueError("must begin with http://")
    return "/".join(url.split("/")[:3])


class World:
    """What stands around the API. `peer` is who calls, `phase` how far the daemon is, `receiver_up` whether callbacks arrive."""

    def __init__(self, clock: FakeClock, directory: Path) -> None:
        self.clock = clock
        self.peer = ROOT
        self.phase = Phase()
        self.receiver_up = True
        self.engine = MemoryEngine(clock)
        self.backend = SimulatedBackend(SimulatedSettings(scenario=SCENARIO), ZoneContext("play", str(directory), 5.0, clock))
        self.zones = {"play": Zone("play", "simulated", self.backend, poll_interval=1.0)}
        notices = Notices(lane, lambda task, outcome, error: [Call("POST", f"/tasks/{task.id}", {})])
        self.book = ZoneBook(self.zones.values(), clock)
        admission = Admission(self.zones, lane, ["default"], clock)
        self.manager = TaskManager(self.engine, self.zones, admission, notices, self.book, clock, Limits(50, 20))
        self.poller = Poller(self.engine, self.zones, notices, self.book, clock)
        self.fatal: list[BaseException] = []

    async def open(self) -> None:
        handlers = Handlers(self.poller, self._deliver, self.poller.expire, self.manager.changed, self.fatal.append)
        await self.engine.open({"play": 1.0}, handlers)

    async def _deliver(self, delivery: Delivery) -> Outcome:
        at = self.clock.now()
        return Delivered(Attempt(at=at, status=200)) if self.receiver_up else Later(Attempt(at=at, error="down"), 3600.0)

    def app(self) -> Application:
        daemon = Daemon(
            version=VERSION,
            boot_id="boot",
            started_at=self.clock.now(),
            phase=lambda: self.phase,
            features=("batch",),
            limits={"live_tasks": 50},
        )
        members = Members(gids=frozenset({70})), Members(uids=frozenset({READER.uid}))
        made = make_app(self.manager, daemon, Access(None, *members, peer=lambda _: self.peer))
        self.api: Api = made.settings["api"]
        return made


class Answer(Struct, frozen=True):
    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Caller:
    """Asks the API as `world.peer`, or as the peer named `by`; a new connection for each request."""

    def __init__(self, http: AsyncHTTPClient, world: World) -> None:
        self._http = http
        self._world = world

    async def __call__(
        self, method: str, path: str, body: Any = None, by: Peer | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        before, self._world.peer = self._world.peer, by or self._world.peer
        raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        kind = {} if raw is None else {"Content-Type": "application/json"}
        try:
            answer = await self._http.fetch(
                f"http://unix{path}",
                method=method,
                body=raw,
                headers=kind | (headers or {}),
                raise_error=False,
                allow_nonstandard_methods=True,
                follow_redirects=False,
                request_timeout=30,
            )
        finally:
            self._world.peer = before
        return Answer(answer.code, answer.headers, answer.body or b"")

    async def get(self, path: str, by: Peer | None = None, **headers: str) -> Answer:
        return await self("GET", path, by=by, headers={name.replace("_", "-"): value for name, value in headers.items()})

    async def post(self, path: str, body: Any = None, by: Peer | None = None, **headers: str) -> Answer:
        return await self("POST", path, body, by=by, headers={name.replace("_", "-"): value for name, value in headers.items()})

    async def quiet(self) -> None:
        """No polls from now on, so that nothing happens but what the test does."""
        assert (await self.post("/v1/zones/play/pause")).status == 200

    async def register(self, name: str = "d-1", by: Peer | None = None, **members: Any) -> dict[str, Any]:
        answer = await self.post("/v1/tasks", {"id": name, "action": "backup", "zone": "play"} | members, by=by)
        assert answer.status == 202, answer.body
        task: dict[str, Any] = answer.json
        return task

    async def ended(self, name: str = "quick-1", by: Peer | None = None, **members: Any) -> dict[str, Any]:
        """A task that has succeeded."""
        task = await self.register(name, by=by, **members)
        self._world.clock.advance(5.0)
        answer = await self.waited(self.get(f"/v1/tasks/{task['uid']}?wait=100"))
        assert answer.json["done"], answer.body
        ended: dict[str, Any] = answer.json
        return ended

    async def waited(self, asking: Any) -> Answer:
        """The answer to a request that waits for something the clock brings."""
        pending = asyncio.ensure_future(asking)
        end = time.monotonic() + 20
        while not pending.done():
            assert time.monotonic() < end, "no answer"
            await asyncio.sleep(0)
            self._world.clock.advance(0.01)
        answer: Answer = await pending
        return answer


@pytest.fixture
def world(io_loop: AsyncIOLoop, clock: FakeClock, short_path: Path) -> Iterator[World]:
    async def made() -> World:
        found = World(clock, short_path)
        await found.open()
        return found

    built: World = io_loop.run_sync(made, timeout=PATIENCE)
    yield built
    io_loop.run_sync(built.engine.close, timeout=PATIENCE)
    assert built.fatal == []


@pytest.fixture
def app(world: World) -> Application:
    return world.app()


@pytest.fixture
def ask(http_client: AsyncHTTPClient, world: World) -> Caller:
    return Caller(http_client, world)


@pytest.fixture
def connect(socket_path: str, request: pytest.FixtureRequest) -> Callable[[], Any]:
    """Opens raw connections: (reader, writer)."""
    request.getfixturevalue("http_server")

    async def opened() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(socket_path)

    return opened


async def turns_until(holds: Callable[[], object], seconds: float = 20.0) -> None:
    """Let the event loop turn until `holds()`."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "did not happen"
        await asyncio.sleep(0)
