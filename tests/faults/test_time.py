"""Clocks that do what they should not: the wall clock is set, summer time begins, the machine sleeps, the process is stopped.

Deadlines are wall time, intervals and retries are monotonic time. During suspend CLOCK_MONOTONIC stands still while the wall
goes on, which is `FakeClock.jump`; a stopped process sees both go on at once, which is `FakeClock.advance`.
"""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tornado.platform.asyncio import AsyncIOLoop

from task_daemon.backends.simulated import Job, SimulatedBackend, SimulatedSettings
from task_daemon.clock import FakeClock
from task_daemon.core.model import CallbackTarget, Delivery, Draft, Owner, State, Task
from task_daemon.core.ports import Answer, Handlers, Zone, ZoneContext
from task_daemon.engine.local.engine import LocalEngine
from task_daemon.engine.memory import MemoryEngine
from task_daemon.tracking.admit import Admission, Registration
from task_daemon.tracking.deliver import Deliverer
from task_daemon.tracking.manager import Limits, TaskManager
from task_daemon.tracking.notify import Notices
from task_daemon.tracking.poll import Poller
from task_daemon.tracking.zones import ZoneBook
from tests.waiting import PATIENCE

INTERVAL = 10.0
HOUR, DAY = 3600.0, 86_400.0
OWNER = Owner(1000, 1000, 1)
HOOK = CallbackTarget(url="http://127.0.0.1:9/hook", events=("finished", "progress", "stalled"))
SCHEDULE = (0.0, 60.0, 900.0, HOUR)
NEVER_ENDS = Job(id="*", finish_after=1000 * DAY)


class CountingBackend(SimulatedBackend):
    """Counts how often the zone is asked."""

    polls = 0

    def poll(self, tasks: Any) -> Any:
        self.polls += 1
        return super().poll(tasks)


class House:
    """A daemon without its HTTP: one zone, one receiver, real engine."""

    def __init__(self, kind: str, path: Path, clock: FakeClock) -> None:
        self.clock = clock
        self.kind, self.path = kind, path
        self.up = True
        self.sent: list[tuple[str, float]] = []  # type of the event, monotonic
        context = ZoneContext("z1", str(path), 5.0, clock)
        self.backend = CountingBackend(SimulatedSettings(scenario=[Job(id="quick-*", finish_after=5.0), NEVER_ENDS]), context)
        self.fatal: list[BaseException] = []
        self.engine = self._make()

    def _make(self) -> LocalEngine | MemoryEngine:
        if self.kind == "memory":
            return MemoryEngine(self.clock)
        return LocalEngine(self.path, self.clock, stuck_after=lambda _zone: 60.0)

    async def open(self) -> None:
        zones = {"z1": Zone("z1", "simulated", self.backend, INTERVAL, stall_after=600.0)}
        notices, book = Notices(lane, None), ZoneBook(zones.values(), self.clock)
        admission = Admission(zones, lane, [], self.clock)
        self.manager = TaskManager(self.engine, zones, admission, notices, book, self.clock, Limits())
        self.poller = poller = Poller(self.engine, zones, notices, book, self.clock)
        self.expire: Callable[[Sequence[Task]], None] = poller.expire
        deliverer = Deliverer(self, self.clock, SCHEDULE, chance=lambda: 0.5)
        handlers = Handlers(poller, deliverer, lambda tasks: self.expire(tasks), self.manager.changed, self.fatal.append)
        await self.engine.open({"z1": INTERVAL}, handlers)
        await self.engine.idle()

    async def send(self, delivery: Delivery, attempt: int, now: float) -> Answer:
        self.sent.append((delivery.type.removeprefix("task."), self.clock.monotonic()))
        return Answer(204 if self.up else 500, 0.0)

    async def close(self) -> None:
        await self.engine.close()

    async def reopen(self) -> None:
        await self.engine.close()
        if self.kind == "local":
            self.engine = self._make()
        await self.open()

    async def register(self, id: str = "d", **members: Any) -> Task:  # noqa: A002 - the member's name
        defaults: dict[str, Any] = {"id": id, "action": "backup", "zone": "z1", "callback": HOOK}
        (added,) = await self.manager.register([Registration(Draft(**(defaults | members)))], OWNER)
        await self.pass_(0.1)  # polls that are asked for keep a small distance
        return added.task

    async def pass_(self, seconds: float) -> None:
        self.clock.advance(seconds)
        await self.engine.idle()

    async def jump(self, seconds: float) -> None:
        """The engine notices at its next look at the wall clock, 5 s later at most."""
        self.clock.jump(seconds)
        await self.pass_(5.0)

    async def state(self, task: Task) -> State:
        return (await self.manager.get(task.uid)).state

    async def first_tries(self, seconds: float, step: float) -> list[int]:
        """Whole seconds after which the receiver hears something, within the given time."""
        begun = self.clock.monotonic()
        before = len(self.sent)
        await self.pass_(0.5)  # so that no rounding decides between two steps
        for _ in range(int(seconds / step)):
            await self.pass_(step)
        return [int(at - begun) for _, at in self.sent[before:]]


def lane(url: str) -> str:
    return "/".join(url.split("/")[:3])


@pytest.fixture(params=["local", "memory"])
def house(request: pytest.FixtureRequest, io_loop: AsyncIOLoop, short_path: Path, clock: FakeClock) -> Iterator[House]:
    house = House(request.param, short_path, clock)
    io_loop.run_sync(house.open, timeout=PATIENCE)
    yield house
    io_loop.run_sync(house.close, timeout=PATIENCE)
    assert house.fatal == []


# ---- deadlines are wall time


@pytest.mark.parametrize("seconds", [DAY, HOUR])
async def test_task_expires_when_the_wall_clock_is_set_beyond_its_deadline(house: House, seconds: float) -> None:
    task = await house.register(timeout=HOUR)
    await house.jump(seconds)
    await house.pass_(5.0)  # an expiry that lost against a poll is made again

    assert await house.state(task) is State.FAILED
    assert [kind for kind, _ in house.sent][-1] == "failed"


async def test_deadline_stays_where_it_was_when_the_wall_clock_is_set_back(house: House) -> None:
    task = await house.register(timeout=HOUR)
    await house.jump(-DAY)
    await house.pass_(HOUR)
    assert await house.state(task) is State.RUNNING

    await house.pass_(DAY)
    await house.pass_(5.0)
    assert await house.state(task) is State.FAILED


async def test_task_expires_when_the_machine_slept_past_its_deadline(house: House) -> None:
    late, early = await house.register("d", timeout=HOUR / 2), await house.register("e", timeout=2 * HOUR)
    await house.jump(HOUR)  # suspend: monotonic time stood still
    await house.pass_(5.0)

    assert (await house.state(late), await house.state(early)) == (State.FAILED, State.RUNNING)


async def test_deadline_holds_when_the_wall_clock_was_a_day_ahead_and_expiry_failed_then(house: House) -> None:
    """An expiry that came to nothing while the clock was wrong must not be put off until that time comes again."""
    task = await house.register(timeout=2 * HOUR)
    house.expire = lambda _tasks: None
    await house.jump(DAY)
    house.expire = house.poller.expire
    await house.jump(-DAY)
    assert await house.state(task) is State.RUNNING

    await house.pass_(2 * HOUR)
    await house.pass_(5.0)
    assert await house.state(task) is State.FAILED


async def test_silence_is_noticed_when_the_wall_clock_was_set_back(house: House) -> None:
    await house.register("d", action="clone", params={"stall_at": 0}, timeout=30 * DAY)
    await house.pass_(INTERVAL)
    await house.jump(-DAY)
    for _ in range(70):
        await house.pass_(INTERVAL)

    assert [kind for kind, _ in house.sent] == ["stalled"]


@pytest.mark.parametrize("seconds", [HOUR, DAY])
async def test_silence_is_told_once_when_the_wall_clock_is_set_forward_or_the_machine_slept(house: House, seconds: float) -> None:
    """Between two polls on both sides of the jump nothing has moved: for all that can be known it was silent so long."""
    task = await house.register("d", action="clone", params={"stall_at": 0}, timeout=30 * DAY)
    await house.pass_(INTERVAL)
    await house.jump(seconds)
    for _ in range(70):
        await house.pass_(INTERVAL)
    assert [kind for kind, _ in house.sent] == ["stalled"]
    assert await house.state(task) is State.RUNNING


# ---- polls are monotonic time


@pytest.mark.parametrize("seconds", [DAY, -DAY, HOUR, -HOUR])
async def test_polls_keep_their_beat_when_the_wall_clock_is_set(house: House, seconds: float) -> None:
    await house.register(timeout=30 * DAY)
    await house.pass_(INTERVAL)
    before = house.backend.polls
    house.clock.jump(seconds)
    for _ in range(600):
        await house.pass_(1.0)

    assert house.backend.polls - before == 60


async def test_zone_is_polled_once_when_the_process_was_stopped_for_an_hour(house: House) -> None:
    await house.register(timeout=DAY)
    before = house.backend.polls
    await house.pass_(HOUR)
    assert house.backend.polls - before == 1

    for _ in range(100):
        await house.pass_(1.0)
    assert house.backend.polls - before == 11


async def test_next_poll_is_shown_within_the_interval_when_the_wall_clock_was_set(house: House) -> None:
    task = await house.register(timeout=30 * DAY)
    for seconds in (DAY, -2 * DAY, DAY):
        await house.jump(seconds)
        at = house.engine.times(await house.manager.get(task.uid)).next_poll_at
        assert at is not None
        assert 0 <= at - house.clock.now() <= INTERVAL


# ---- callbacks: no wait gets longer


@pytest.mark.parametrize("seconds", [-DAY, -HOUR, -90.0])
async def test_callback_is_tried_again_as_planned_when_the_wall_clock_is_set_back(house: House, seconds: float) -> None:
    house.up = False
    await house.register("quick-1")
    await house.pass_(INTERVAL)
    assert [kind for kind, _ in house.sent] == ["succeeded"]

    house.clock.jump(seconds)
    assert await house.first_tries(1200.0, step=10.0) == [60, 960]


async def test_callback_is_tried_again_as_planned_when_the_wall_clock_is_set_back_before_a_restart(house: House) -> None:
    house.up = False
    await house.register("quick-1")
    await house.pass_(INTERVAL)
    house.clock.jump(-DAY)
    await house.reopen()

    assert await house.first_tries(1200.0, step=10.0) == [60, 960]


async def test_callback_goes_out_at_once_when_the_wall_clock_was_set_back_just_before(house: House) -> None:
    await house.register("quick-1", timeout=30 * DAY)
    house.clock.jump(-DAY)
    house.clock.jump(DAY + INTERVAL)  # the work is over by wall time
    await house.pass_(INTERVAL)

    assert [kind for kind, _ in house.sent] == ["succeeded"]


async def test_callback_is_tried_once_more_and_not_again_and_again_when_the_wall_clock_is_set_forward(house: House) -> None:
    house.up = False
    await house.register("quick-1")
    await house.pass_(INTERVAL)
    await house.jump(DAY)
    assert len(house.sent) == 2

    assert await house.first_tries(1200.0, step=10.0) == [900]


async def test_held_receiver_is_probed_as_planned_when_the_wall_clock_is_set_back(house: House) -> None:
    house.up = False
    for n in range(6):
        await house.register(f"quick-{n}")
    await house.pass_(INTERVAL)
    assert house.engine.status()["outbox"]["held"] == ["http://127.0.0.1:9"]
    house.up = True
    house.clock.jump(-DAY)

    assert len(await house.first_tries(120.0, step=5.0)) >= 6
    assert house.engine.status()["outbox"]["held"] == []


async def test_owner_can_wake_its_callbacks_when_the_wall_clock_was_set_back(house: House) -> None:
    house.up = False
    await house.register("quick-1")
    await house.pass_(INTERVAL)
    house.manager.heard_of(OWNER.uid)
    await house.engine.idle()
    before = len(house.sent)
    await house.jump(-DAY)
    house.manager.heard_of(OWNER.uid)
    await house.engine.idle()

    assert len(house.sent) == before + 1


# ---- what a task shows


async def test_progress_is_told_again_soon_when_the_wall_clock_was_set_back(house: House) -> None:
    await house.register("d", action="clone", params={"finish_after": 100 * DAY}, timeout=200 * DAY)
    await house.pass_(DAY)
    await house.pass_(INTERVAL)
    before = len([kind for kind, _ in house.sent if kind == "progress"])
    assert before > 0
    await house.jump(-HOUR)
    await house.pass_(INTERVAL)

    assert len([kind for kind, _ in house.sent if kind == "progress"]) > before


async def test_percent_does_not_fall_when_the_wall_clock_is_set_back(house: House) -> None:
    task = await house.register("d", action="clone", params={"finish_after": 10 * DAY}, timeout=200 * DAY)
    await house.pass_(DAY)
    shown = (await house.manager.get(task.uid)).progress
    await house.jump(-DAY)
    await house.pass_(INTERVAL)

    again = (await house.manager.get(task.uid)).progress
    assert shown is not None
    assert again is not None
    assert again.percent == shown.percent == pytest.approx(10.0, abs=0.1)


@pytest.mark.parametrize("begins", ["2027-03-28T00:59:50+00:00", "2027-10-31T00:59:50+00:00"])
def test_summer_time_changes_nothing_when_it_begins_or_ends(begins: str) -> None:
    """Shown times are UTC and go on evenly, whatever the zone of the machine."""
    program = (
        "from datetime import datetime\n"
        "from task_daemon.core.view import rfc3339\n"
        f"at = datetime.fromisoformat({begins!r}).timestamp()\n"
        "print(' '.join(rfc3339(at + n) for n in (0, 20, 3620)))"
    )
    shown = {
        subprocess.run(
            [sys.executable, "-c", program], env={"TZ": zone, "PATH": ""}, capture_output=True, text=True, check=True
        ).stdout
        for zone in ("UTC", "Europe/Berlin", "America/New_York")
    }

    day = begins[:10]
    assert shown == {f"{day}T00:59:50.000Z {day}T01:00:10.000Z {day}T02:00:10.000Z\n"}


async def test_waiting_request_ends_on_time_when_the_wall_clock_is_set(house: House) -> None:
    task = await house.register(timeout=30 * DAY)
    waiting = asyncio.ensure_future(house.manager.wait(task.uid, 30.0))
    await asyncio.sleep(0)
    house.clock.jump(-DAY)
    await house.pass_(29.0)
    assert not waiting.done()
    await house.pass_(1.0)

    assert (await waiting).state is State.RUNNING
