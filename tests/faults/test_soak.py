"""A day in a minute: tasks come and end by the hour, zones fall silent and restart, receivers fail, and nothing grows."""

import gc
import os
import random
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct
from msgspec.structs import replace
from tornado.platform.asyncio import AsyncIOLoop

from task_daemon.backends.simulated import Job, SimulatedBackend, SimulatedSettings
from task_daemon.clock import FakeClock
from task_daemon.core.model import CallbackTarget, Delivery, Draft, Owner
from task_daemon.core.ports import Answer, Handlers, Zone, ZoneContext
from task_daemon.engine.local.engine import LocalEngine
from task_daemon.tracking.admit import Admission, Registration
from task_daemon.tracking.deliver import Deliverer
from task_daemon.tracking.janitor import Janitor
from task_daemon.tracking.manager import Limits, TaskManager
from task_daemon.tracking.notify import Notices
from task_daemon.tracking.poll import Poller
from task_daemon.tracking.zones import ZoneBook
from tests.waiting import PATIENCE

TASKS = 10_000
SEED = int(os.environ.get("TASK_DAEMON_SEED", "20261121"))
HOUR = 3600.0
STEP = 300.0  # seconds between two looks at the clock, and the zones' interval
STEPS = int(24 * HOUR / STEP)
WARM = int(6 * HOUR / STEP)  # by then as many tasks end as begin, and the first have been removed
ZONES = [f"z{n}" for n in range(10)]
FAILING = 0.01  # of all attempts to deliver
OWNER = Owner(1000, 1000, 1)
SCENARIO = [
    Job(id="bad-*", finish_after=2 * HOUR, fail_at=50),
    Job(id="stuck-*", stall_at=40),
    Job(id="long-*", finish_after=3 * HOUR),
    Job(finish_after=HOUR),
]
KINDS = ["short"] * 60 + ["long"] * 30 + ["bad"] * 8 + ["stuck"] * 2


class Size(Struct, frozen=True):
    """What must not grow."""

    resident: int  # bytes
    blocks: int  # of Python's allocator
    descriptors: int
    threads: int


def measured() -> Size:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Size(
        pages * os.sysconf("SC_PAGE_SIZE"),
        sys.getallocatedblocks(),
        len(list(Path("/proc/self/fd").iterdir())),
        threading.active_count(),
    )


class Day:
    """The daemon's rooms with a day's load. What the test itself remembers has its full size from the beginning."""

    def __init__(self, path: Path, clock: FakeClock) -> None:
        self.random = random.Random(SEED)
        self.clock = clock
        self.accepted = bytearray(TASKS)  # how often the end of task n was taken by its receiver
        self.ends: Counter[str] = Counter()
        self.attempts = self.failures = self.restarts = 0
        self.fatal: list[BaseException] = []
        self.registered = 0
        self._path = path
        self.engine = LocalEngine(path, clock, stuck_after=lambda _zone: 1e9)
        self.zones = {name: Zone(name, "simulated", self._backend(name), STEP, stall_after=1e9) for name in ZONES}
        notices, book = Notices(lane, None), ZoneBook(self.zones.values(), clock)
        admission = Admission(self.zones, lane, [], clock)
        self.manager = TaskManager(self.engine, self.zones, admission, notices, book, clock, Limits())
        self.janitor = Janitor(self.engine, clock, retention_days=1 / 24, retention_tasks=100_000)
        poller = Poller(self.engine, self.zones, notices, book, clock)
        deliverer = Deliverer(self, clock, chance=self.random.random)
        self._handlers = Handlers(poller, deliverer, poller.expire, self.manager.changed, self.fatal.append)

    async def open(self) -> None:
        await self.engine.open(dict.fromkeys(ZONES, STEP), self._handlers)
        await self.engine.idle()

    async def close(self) -> None:
        await self.engine.close()

    async def send(self, delivery: Delivery, attempt: int, now: float) -> Answer:
        self.attempts += 1
        if self.random.random() < FAILING:
            self.failures += 1
            return Answer(500, 0.01)
        self.accepted[int(delivery.url.rpartition("/")[2])] += 1
        self.ends[delivery.type.removeprefix("task.")] += 1
        return Answer(204, 0.01)

    async def step(self, number: int) -> None:
        await self._register(TASKS * (number + 1) // STEPS - self.registered if number < STEPS else 0)
        self._trouble(number)
        self.clock.advance(STEP)
        await self.engine.idle()
        await self.janitor.sweep()

    async def _register(self, count: int) -> None:
        drafts = [self._draft(number) for number in range(self.registered, self.registered + count)]
        self.registered += count
        if drafts:
            await self.manager.register([Registration(draft) for draft in drafts], OWNER)

    def _draft(self, number: int) -> Draft:
        params: dict[str, Any] | None = {} if number % 2 else None
        return Draft(
            id=f"{self.random.choice(KINDS)}-{number}",
            action="backup",
            zone=self.random.choice(ZONES),
            params=params,
            timeout=4 * HOUR,
            callback=CallbackTarget(url=f"http://receiver-{number % 5}/{number}"),
        )

    def _trouble(self, number: int) -> None:
        """Every hour one zone restarts and has forgotten its work."""
        if number % 12 == 11:
            name = ZONES[number // 12 % len(ZONES)]
            self.zones[name] = replace(self.zones[name], backend=self._backend(name))
            self.restarts += 1

    def _backend(self, name: str) -> SimulatedBackend:
        """One that falls silent for ten minutes a quarter of an hour after its start, and then every two hours."""
        silent = [(900 + 2 * HOUR * n, 1500 + 2 * HOUR * n) for n in range(20)]
        settings = SimulatedSettings(scenario=SCENARIO, unreachable=silent, forget_at_restart=True)
        return SimulatedBackend(settings, ZoneContext(name, str(self._path), 5.0, self.clock))


def lane(url: str) -> str:
    return "/".join(url.split("/")[:3])


@pytest.fixture
def day(io_loop: AsyncIOLoop, short_path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture) -> Iterator[Day]:
    caplog.set_level("CRITICAL", logger="task_daemon")  # records that are kept would be the growth
    day = Day(short_path, clock)
    io_loop.run_sync(day.open, timeout=PATIENCE)
    yield day
    io_loop.run_sync(day.close, timeout=PATIENCE)
    assert day.fatal == []


@pytest.mark.timeout(300)
@pytest.mark.gen_test(timeout=250)
async def test_everybody_is_told_and_nothing_grows_when_a_day_goes_by(day: Day) -> None:
    for number in range(WARM):
        await day.step(number)
    before, store_before = measured(), day.engine.status()["store"]["bytes"]
    live_before = day.engine.status()["live"]
    for number in range(WARM, STEPS):
        await day.step(number)
    after, store_after = measured(), day.engine.status()["store"]["bytes"]
    live_after = day.engine.status()["live"]
    for number in range(STEPS, STEPS + int(8 * HOUR / STEP)):
        await day.step(number)

    print(f"\n{TASKS} tasks, seed {SEED}; ends {dict(day.ends)}; {day.attempts} attempts, {day.failures} failed;")
    print(f"{day.restarts} restarts; live {live_before} -> {live_after}; store {store_before} -> {store_after};")
    print(f"after 6 h {before}; after 24 h {after}")
    status = day.engine.status()
    assert (status["live"], status["untidy"], status["outbox"]["in_memory"]) == (0, 0, 0)
    assert day.accepted == b"\x01" * TASKS
    assert min(day.ends[end] for end in ("succeeded", "failed", "lost")) > 0
    assert day.failures > 0
    assert (after.descriptors, after.threads) == (before.descriptors, before.threads)
    assert after.blocks < before.blocks * 1.05
    assert after.resident < before.resident + 8 * 2**20
    assert store_after < store_before * 1.5
