"""What one poll costs each of its tasks, counted, not timed: the calls that Python makes on the thread that polls, and the
statements that reach the store. More of either is more CPU on any machine.

A baseline is what was counted when the code was last looked at for its cost. Beyond it by more than a tenth a change made
polling dearer: find out why. Far below it: lower it, so that what was won is kept.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from msgspec.structs import replace
from tornado.platform.asyncio import AsyncIOLoop

from task_daemon.clock import FakeClock
from task_daemon.core.model import Progress, Report
from task_daemon.core.ports import Again, Beat, Idle
from task_daemon.engine.local.engine import LocalEngine
from task_daemon.tracking.manager import Limits
from task_daemon.tracking.poll import Poller
from tests.tracking.outside import GOING_ON, SUCCEEDED, Outside, World
from tests.waiting import PATIENCE

TASKS = 200
MORE, LESS = 1.1, 0.7  # times the baseline


class Counting:
    """Polls, and counts the calls of Python and C functions meanwhile."""

    def __init__(self, poller: Poller) -> None:
        self._poller = poller
        self.expire = poller.expire
        self.calls = 0

    def __call__(self, beat: Beat) -> Again | Idle:
        sys.setprofile(self._count)
        try:
            return self._poller(beat)
        finally:
            sys.setprofile(None)

    def _count(self, _frame: FrameType, event: str, _what: Any) -> None:
        self.calls += event in {"call", "c_call"}


class Counted(World):
    """A world of one zone, with everything counted from `start` on."""

    def __init__(self, clock: FakeClock, directory: Path) -> None:
        self.outside = Outside()
        super().__init__(clock, directory, {"z1": self.outside}, Limits())
        self.counting = Counting(self.poller)
        self.poller = self.counting  # type: ignore[assignment]
        self.statements: list[str] = []

    async def of_one_beat(self, report: Report) -> float:
        """Calls for each task in a poll that answers so for all."""
        self.outside.report = lambda _task: report
        engine = self.engine
        assert isinstance(engine, LocalEngine)
        self.counting.calls = 0
        engine.store.connection.set_trace_callback(self.statements.append)
        await self.beat()
        engine.store.connection.set_trace_callback(None)
        return self.counting.calls / TASKS

    def written(self) -> dict[str, int]:
        """How many statements of each kind there were, by their first words."""
        kinds = [" ".join(statement.split()[:2]) for statement in self.statements]
        return {kind: kinds.count(kind) for kind in sorted(set(kinds)) if kind.split()[0] in {"INSERT", "UPDATE", "DELETE"}}


@pytest.fixture
def world(io_loop: AsyncIOLoop, clock: FakeClock, short_path: Path) -> Iterator[Counted]:
    world = Counted(clock, short_path)

    async def begin() -> None:
        await world.open()
        for number in range(TASKS):
            await world.register(f"d{number}")
        await world.beat()  # all are running

    io_loop.run_sync(begin, timeout=PATIENCE)
    yield world
    io_loop.run_sync(world.engine.close, timeout=PATIENCE)


def expect(calls: float, baseline: float) -> None:
    assert baseline * LESS <= calls <= baseline * MORE


async def test_poll_that_learns_nothing_costs_little_and_writes_nothing(world: Counted) -> None:
    before = world.engine.status()["store"]["commits"]
    calls = await world.of_one_beat(GOING_ON)

    expect(calls, 21.5)
    assert world.statements == []
    assert world.engine.status()["store"]["commits"] == before


async def test_progress_costs_little_and_writes_nothing(world: Counted) -> None:
    await world.of_one_beat(replace(GOING_ON, progress=Progress(done=1, total=9)))
    calls = await world.of_one_beat(replace(GOING_ON, progress=Progress(done=2, total=9)))

    expect(calls, 48.5)
    assert world.statements == []
    assert world.engine.status()["dirty"] == TASKS


async def test_end_of_a_task_costs_one_change_and_one_event(world: Counted) -> None:
    calls = await world.of_one_beat(SUCCEEDED)

    expect(calls, 43.5)
    assert world.written() == {"INSERT INTO": TASKS, "UPDATE task": TASKS}
    assert world.statements.count("COMMIT") == 1
