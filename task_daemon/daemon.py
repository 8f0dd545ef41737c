"""The composition root: one daemon, wired from its configuration. Nothing else knows all rooms."""

import asyncio
import contextlib
import grp
import logging
import math
import os
import platform
import uuid
from functools import partial
from importlib import metadata
from pathlib import Path

import msgspec

from task_daemon import __version__
from task_daemon.api import context
from task_daemon.api.access import Access, Members
from task_daemon.api.app import make_app
from task_daemon.api.server import ApiServer
from task_daemon.api.stream import Streams
from task_daemon.callbacks.keyring import KeyRing
from task_daemon.callbacks.keystone import FixedAccess, KeystoneAccess, RegionAccess
from task_daemon.callbacks.region import DEFAULT_ROUTES, Route, RouteTable
from task_daemon.callbacks.secret_file import read_secret
from task_daemon.callbacks.sender import HttpSender
from task_daemon.callbacks.target import AllowList, check_target
from task_daemon.config import Config, RegionTable, ZoneConfig, members, shown
from task_daemon.core.errors import ConfigError, Refusal
from task_daemon.core.measures import Durations
from task_daemon.core.model import Owner
from task_daemon.core.ports import Backend, Clock, Handlers, Zone, ZoneContext
from task_daemon.engine.local.engine import LocalEngine
from task_daemon.engine.local.legacy_keep import import_keep
from task_daemon.idleness import Idleness
from task_daemon.logs import recent
from task_daemon.tracking.admit import Admission
from task_daemon.tracking.deliver import Deliverer
from task_daemon.tracking.janitor import Janitor
from task_daemon.tracking.manager import Limits, TaskManager
from task_daemon.tracking.notify import Notices
from task_daemon.tracking.poll import Poller
from task_daemon.tracking.zones import ZoneBook

log = logging.getLogger("task_daemon.main")

FEATURES = (
    "batch",
    "callbacks",
    "cancel",
    "events",
    "event-stream",
    "explain",
    "idempotency-key",
    "metrics",
    "openapi",
    "prefer-wait",
    "resolve",
    "run",
    "track",
    "wait",
)
DURABILITY = "SQLite, WAL, synchronous=FULL: on disk (fsync) before the answer, in groups"
ANSWERS_FLUSHED_IN = 0.4  # seconds that requests in flight get when the daemon stops
LAG_EVERY = 1.0  # seconds
BACKEND_CLOSED_IN = 0.2  # seconds
STUCK_AFTER = (
    10.0  # time-outs of a zone (and as many seconds) after which a worker thread is given up; starting a job takes up to eight
)


class Daemon:
    """One daemon. `inherited`: the descriptor of a listening socket to serve instead of making one.

    Raises ConfigError when the configuration asks for what cannot be made.
    """

    def __init__(self, config: Config, clock: Clock, inherited: int | None = None) -> None:
        self.failed = False
        self._config = config
        self._clock = clock
        self._inherited = inherited
        self._phase = context.Phase("starting")
        self._stop: asyncio.Event | None = None
        self._upkeep: list[asyncio.Task[None]] = []
        self._keys = KeyRing(config.callbacks.keys)
        self._allow = AllowList(config.callbacks.allow)
        self._routes = None if config.region is None else _routes(config.region)
        self._region = None if config.region is None else _region_access(config.region)
        self._zones = {name: _zone(config, zone, clock) for name, zone in config.zones.items()}

    async def start(self, stop: asyncio.Event) -> None:
        """Take the store, begin to poll, listen. `stop` is set when the daemon cannot go on.

        Raises StoreError, ListenError.
        """
        self._stop = stop
        config, clock, zones = self._config, self._clock, self._zones
        for name in zones:
            _directory(config, name).mkdir(mode=0o700, parents=True, exist_ok=True)
        self._engine = LocalEngine(
            config.workspace,
            clock,
            config.daemon.workers,
            self._stuck_after,
            config.callbacks.per_target,
            config.callbacks.concurrency,
        )
        self._sender = HttpSender(
            __version__,
            self._keys,
            self._allow,
            members(config.callbacks.socket_users)[0],
            connect_timeout=config.callbacks.connect_timeout,
            timeout=config.callbacks.timeout,
            region=self._region,
        )
        notices = Notices(check_target, self._routes)
        book = ZoneBook(zones.values(), clock)
        poller = Poller(self._engine, zones, notices, book, clock)
        deliverer = Deliverer(self._sender, clock, config.callbacks.schedule)
        admission = Admission(zones, self._allow.check, self._keys, clock, config.daemon.timeout)
        limits = Limits(config.limits.live_tasks, config.limits.live_tasks_per_uid)
        manager = TaskManager(self._engine, zones, admission, notices, book, clock, limits)
        intervals = {name: zone.poll_interval for name, zone in zones.items()}
        spread = [name for name, zone in zones.items() if zone.one_by_one]
        await self._engine.open(intervals, Handlers(poller, deliverer, poller.expire, manager.changed, self._fatal), spread)
        owner = Owner(os.getuid(), os.getgid(), os.getpid())
        await import_keep(self._engine, config.workspace / "data.keep", clock.now(), owner)
        for zone in zones.values():
            zone.backend.events(partial(self._announced, book, zone.name))
        self._server = self._listen(manager)
        janitor = Janitor(self._engine, clock, config.daemon.retention_days, config.daemon.retention_tasks)
        lag = _feel_lag(self._engine.measures.lag)
        self._upkeep = [asyncio.create_task(work) for work in (janitor.run(), self._keys.follow(clock), lag)]
        if self._inherited is not None and config.daemon.idle_exit:
            idleness = Idleness(self._engine, self._server, clock, config.daemon.idle_exit, stop.set)
            self._upkeep.append(asyncio.create_task(idleness.run()))
        self._phase = context.Phase("ready")
        log.info("task-daemon %s serves %s on %s", __version__, config.workspace, config.unix_socket)

    async def alive(self) -> None:
        """Returns once event loop and store have both shown that they go on; not while one of them hangs."""
        with contextlib.suppress(Refusal):  # refusing is a sign of life too
            await self._engine.alive()

    async def stop(self) -> None:
        """Answer what is in flight, put everything on disk, let go, in less than a second (I11); never touches the work (I9)."""
        self._phase = context.Phase("draining")
        await self._server.stop(ANSWERS_FLUSHED_IN)
        for task in self._upkeep:
            task.cancel()
        await self._sender.close()
        await self._engine.close()
        closing = [asyncio.to_thread(zone.backend.close) for zone in self._zones.values()]
        if closing:
            await asyncio.wait([asyncio.ensure_future(one) for one in closing], timeout=BACKEND_CLOSED_IN)
        log.info("stopped: everything is on disk")

    def _announced(self, book: ZoneBook, zone: str) -> None:
        """Any thread."""
        book.announced(zone)
        self._engine.poke(zone)

    async def idle(self) -> None:
        """For virtual time: return when everything that is due now was done, and has had its consequences."""
        await self._engine.idle()

    def next_due(self) -> float | None:
        """For virtual time, in which nobody sets the wall clock: begin what is due; the monotonic time of what comes next."""
        self._engine.look_at_wall = math.inf
        return self._engine.tick()

    def look_now(self) -> None:
        """For virtual time: have every zone polled now."""
        for zone in self._zones:
            self._engine.poke(zone)

    def backend(self, zone: str) -> Backend:
        """Raises KeyError."""
        return self._zones[zone].backend

    def _listen(self, manager: TaskManager) -> ApiServer:
        config = self._config
        facts = context.Daemon(
            version=__version__,
            boot_id=str(uuid.uuid4()),
            started_at=self._clock.now(),
            phase=self._phase_now,
            features=FEATURES,
            limits=msgspec.to_builtins(config.limits),
            durability=DURABILITY,
            versions=_versions() | {"sqlite": self._engine.store.facts()["sqlite"]},
            config_file=config.file,
            configuration=shown(config),
            recent_log=recent.lines,
        )
        name = config.daemon.socket_group
        group = grp.getgrnam(name).gr_gid if name else None
        people = config.access
        operators = Members(*members(people.operators))
        operators = Members(operators.uids, operators.gids | {os.getegid() if group is None else group})
        access = Access(Members(*members(people.admins)), operators, Members(*members(people.readers)))
        limits = config.limits
        app = make_app(manager, facts, access, Streams(limits.streams, limits.streams_per_uid))
        mode = int(config.daemon.socket_mode, 8)
        server = ApiServer(app, config.unix_socket, mode, group, limits.connections, limits.connections_per_uid)
        if self._inherited is None:
            server.start()
        else:
            server.adopt(self._inherited)
        return server

    def _phase_now(self) -> context.Phase:
        if self._phase.name == "ready" and self._engine.store.full:
            return context.Phase("degraded", "the disk of the store is full; free some space", writable=True)
        return self._phase

    def _stuck_after(self, zone: str) -> float:
        known = self._zones.get(zone)
        return STUCK_AFTER * (1 + (known.poll_timeout if known else 0.0))

    def _fatal(self, error: BaseException) -> None:
        """Whether the last commit happened is not known: stop rather than guess (I10); a restart finds out."""
        log.critical("the store failed and the daemon stops: %s", error)
        self.failed = True
        self._phase = context.Phase("degraded", f"the store failed: {error}")
        if self._stop is not None:
            self._stop.set()


async def _feel_lag(lag: Durations) -> None:
    """How much later than asked for the event loop comes back."""
    now = asyncio.get_running_loop().time
    while True:
        wanted = now() + LAG_EVERY
        await asyncio.sleep(LAG_EVERY)
        lag.add(max(0.0, now() - wanted))


def _versions() -> dict[str, str]:
    """Of what the daemon runs on, by name."""
    found = {"task-daemon": __version__, "python": platform.python_version(), "linux": os.uname().release}
    for package in ("tornado", "msgspec", "h11", "qemu.qmp", "keystoneauth1", "uvloop"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def _directory(config: Config, zone: str) -> Path:
    return config.workspace / "zones" / zone


def _zone(config: Config, zone: ZoneConfig, clock: Clock) -> Zone:
    about = ZoneContext(zone.name, str(_directory(config, zone.name)), zone.table.poll_timeout, clock)
    backend = zone.family.make(zone.settings, about)
    return Zone(
        name=zone.name,
        kind=zone.family.name,
        backend=backend,
        poll_interval=config.poll_interval(zone.name),
        poll_timeout=zone.table.poll_timeout,
        stall_after=zone.table.stall_after,
        labels=zone.table.labels,
        one_by_one=getattr(backend, "one_by_one", False),
    )


def _routes(region: RegionTable) -> RouteTable:
    if not region.routes:
        return RouteTable(DEFAULT_ROUTES, region.words)
    mistakes: list[str] = []
    routes: list[Route] = []
    for index, route in enumerate(region.routes):
        try:
            routes.append(msgspec.convert(route, Route, strict=True))
        except msgspec.ValidationError as error:
            mistakes.append(f"[[region.routes]] number {index + 1}: {error}")
    if mistakes:
        raise ConfigError(mistakes)
    return RouteTable(routes, region.words)


def _region_access(region: RegionTable) -> RegionAccess:
    if region.service_url:
        return FixedAccess(region.service_url, region.token_file or None)
    password = region.admin_password or _read_password(region.admin_password_file)
    return KeystoneAccess(region.auth_uri, region.admin_user, password, region.admin_tenant_name, region.region, region.service)


def _read_password(path: str) -> str:
    try:
        return read_secret(path).strip()
    except (OSError, ValueError) as error:
        raise ConfigError([f"[region] admin_password_file: cannot read {path}: {error}"]) from None
