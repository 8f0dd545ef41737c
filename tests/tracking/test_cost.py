"""What one poll costs each of its tasks, counted, not timed: the calls that Python makes on the thread that polls, and the
statements that reach the store. More of either is more CPU on any machine. The baselines are in test_cost.json; how they are
renewed says tests/costs.py.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace
from tornado.platform.asyncio import AsyncIOLoop

from task_daemon.clock import FakeClock
from task_daemon.core.model import Progress, Report
from task_daemon.core.ports import Again, Beat, Idle
from task_daemon.engine.beats import POKE_GAP
from task_daemon.engine.local.engine import LocalEngine
from task_daemon.tracking.manager import Limits
from task_daemon.tracking.poll import Poller
from tests.costs import Calls, counted, expect_cost
from tests.tracking.outside import GOING_ON, INTERVAL, SUCCEEDED, TOLD, Outside, World
from tests.waiting import PATIENCE

TASKS = 200
COMMITS = 4  # of 64 tasks at most
STATEMENTS = 4  # of 64 and of 8 rows


class Counting:
    """Polls, and counts the calls of Python and C functions meanwhile."""

    def __init__(self, poller: Poller) -> None:
        self._poller = poller
        self.expire = poller.expire
        self.calls = Calls()

    def __call__(self, beat: Beat) -> Again | Idle:
        with counted(self.calls):
            return self._poller(beat)


class Counted(World):
    """A world of one zone, with everything counted from `start` on."""

    def __init__(self, clock: FakeClock, directory: Path) -> None:
        self.outside = Outside()
        super().__init__(clock, directory, {"z1": self.outside}, Limits())
        self.counting = Counting(self.poller)
        self.poller = self.counting  # type: ignore[assignment]
        self.statements: list[str] = []

    async def of_one_beat(self, report: Report, after: float = INTERVAL) -> float:
        """Calls for each task in a poll that answers so for all."""
        self.outside.report = lambda _task: report
        engine = self.engine
        assert isinstance(engine, LocalEngine)
        self.counting.calls.made = 0
        engine.store.connection.set_trace_callback(self.statements.append)
        await self.pass_(after)
        engine.store.connection.set_trace_callback(None)
        return self.counting.calls.made / TASKS

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


async def test_poll_that_learns_nothing_costs_little_and_writes_nothing(world: Counted) -> None:
    before = world.engine.status()["store"]["commits"]
    calls = await world.of_one_beat(GOING_ON)

    expect_cost(__file__, "a poll that learns nothing, for each task", calls)
    assert world.statements == []
    assert world.engine.status()["store"]["commits"] == before


async def test_progress_costs_little_and_writes_nothing(world: Counted) -> None:
    await world.of_one_beat(replace(GOING_ON, progress=Progress(done=1, total=9)))
    calls = await world.of_one_beat(replace(GOING_ON, progress=Progress(done=2, total=9)))

    expect_cost(__file__, "progress, for each task", calls)
    assert world.statements == []
    assert world.engine.status()["dirty"] == TASKS


async def test_first_poll_of_a_task_costs_one_change_and_one_event(world: Counted) -> None:
    for number in range(TASKS):
        await world.register(f"new{number}")
    calls = await world.of_one_beat(GOING_ON, after=POKE_GAP)

    expect_cost(__file__, "the first poll of a task", calls)
    assert len(world.outside.polls[-1]) == TASKS
    assert world.written() == {"INSERT INTO": STATEMENTS, "UPDATE task": STATEMENTS}


async def test_end_of_a_task_costs_one_change_and_one_event(world: Counted) -> None:
    calls = await world.of_one_beat(SUCCEEDED)

    expect_cost(__file__, "the end of a task", calls)
    assert world.written() == {"INSERT INTO": STATEMENTS, "UPDATE task": STATEMENTS}
    assert world.statements.count("COMMIT") == COMMITS


async def test_end_of_a_task_that_is_told_costs_one_delivery_more(world: Counted) -> None:
    await world.of_one_beat(SUCCEEDED)
    for number in range(TASKS):
        await world.register(f"told{number}", callback=TOLD)
    await world.of_one_beat(GOING_ON)
    world.statements.clear()
    calls = await world.of_one_beat(SUCCEEDED)

    expect_cost(__file__, "the end of a task that is told", calls)
    assert len(await world.engine.deliveries(limit=2 * TASKS)) == TASKS
