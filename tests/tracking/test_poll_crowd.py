"""Many tasks of one zone that end at once."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from tornado.platform.asyncio import AsyncIOLoop

from task_daemon.clock import FakeClock
from task_daemon.core.model import Change, DeliveryState
from task_daemon.core.ports import Beat
from task_daemon.tracking.manager import Limits
from task_daemon.tracking.poll import AT_ONCE, SAID_AT_ONCE
from tests.tracking.outside import OWNER, SUCCEEDED, TOLD, Outside, World, wanted
from tests.waiting import PATIENCE

TASKS = 2 * AT_ONCE + 3


@pytest.fixture
def world(io_loop: AsyncIOLoop, clock: FakeClock, short_path: Path) -> Iterator[World]:
    """All tasks are running, and end with the next poll."""
    outside = Outside()
    world = World(clock, short_path, {"z1": outside}, Limits())

    async def begin() -> None:
        await world.open()
        await world.manager.register([wanted(f"d{n}", callback=TOLD) for n in range(TASKS)], OWNER)
        await world.beat()
        outside.polls.clear()
        outside.report = lambda _task: SUCCEEDED

    io_loop.run_sync(begin, timeout=PATIENCE)
    yield world
    io_loop.run_sync(world.engine.close, timeout=PATIENCE)


async def test_i4_callbacks_of_the_first_ends_go_out_before_the_last_ends_are_written(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One call answers for all; each piece of it is one commit with its callbacks."""
    pieces: list[int] = []
    write = world.engine.report

    def report(beat: Beat | None, changes: Sequence[Change]) -> list[bool]:
        assert all(len(change.deliveries) == 1 for change in changes)
        pieces.append(len(changes))
        return write(beat, changes)

    monkeypatch.setattr(world.engine, "report", report)
    await world.beat()

    outside = world.zones["z1"].backend
    assert isinstance(outside, Outside)
    assert [len(ids) for ids in outside.polls] == [TASKS]
    assert pieces == [AT_ONCE, AT_ONCE, 3]
    told = await world.engine.deliveries(limit=TASKS + 1)
    assert [row.state for row in told] == [DeliveryState.DELIVERED] * TASKS


async def test_a_crowd_has_some_lines_in_the_log_and_one_that_counts_the_others(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "task_daemon.tracking")
    await world.beat()
    said = [record.getMessage() for record in caplog.records]

    assert sum(line.startswith("task ") and " succeeded" in line for line in said) == 2 * SAID_AT_ONCE + 3
    assert sum(line.startswith(f"{AT_ONCE - SAID_AT_ONCE} more tasks of zone z1 succeeded") for line in said) == 2


async def test_whoever_asks_for_all_lines_gets_them(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "task_daemon.tracking")
    await world.beat()

    assert sum(record.getMessage().startswith("task ") for record in caplog.records) == TASKS
