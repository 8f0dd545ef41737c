"""Which finished tasks the janitor removes, when, and that nothing stops it."""

import asyncio
import logging
from collections.abc import Iterator

import pytest

from task_daemon.clock import FakeClock
from task_daemon.core.errors import StoreFull
from task_daemon.core.model import CallbackTarget, Query, Report, Verdict
from task_daemon.engine.memory import MemoryEngine
from task_daemon.tracking.janitor import EVERY, ROUND, SECONDS_A_DAY, Janitor
from tests.tracking.outside import HOOK, Make, Outside, World, turns


async def ids(world: World) -> list[str]:
    return sorted(task.id for task in (await world.engine.find(Query(limit=500))).tasks)


async def ended(world: World, outside: Outside, *names: str) -> None:
    outside.report = lambda _: Report(Verdict.SUCCEEDED)
    for name in names:
        await world.register(name)
        await world.beat()


class Upset(MemoryEngine):
    """An engine whose next removals go as `outcomes` says."""

    def __init__(self, clock: FakeClock, *outcomes: int | Exception) -> None:
        super().__init__(clock)
        self.outcomes: Iterator[int | Exception] = iter(outcomes)
        self.asked: list[tuple[float, int]] = []

    async def purge(self, finished_before: float, keep: int) -> int:
        self.asked.append((finished_before, keep))
        outcome = next(self.outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


async def test_tasks_are_removed_when_they_ended_longer_ago_than_the_retention(
    make: Make, outside: Outside, clock: FakeClock
) -> None:
    world = await make(z1=outside)
    await ended(world, outside, "old")
    clock.advance(2 * SECONDS_A_DAY)
    await ended(world, outside, "new")
    outside.report = lambda _: Report(Verdict.GOING_ON)
    await world.register("live", timeout=100 * SECONDS_A_DAY)
    clock.advance(0.5 * SECONDS_A_DAY)

    assert await Janitor(world.engine, clock, 1.0, 1000).sweep() == 1
    assert await ids(world) == ["live", "new"]


async def test_the_oldest_are_removed_when_there_are_too_many(make: Make, outside: Outside, clock: FakeClock) -> None:
    world = await make(z1=outside)
    await ended(world, outside, "a", "b", "c", "d")

    assert await Janitor(world.engine, clock, 1000.0, 2).sweep() == 2
    assert await ids(world) == ["c", "d"]


async def test_a_task_whose_registrant_was_not_told_yet_stays(make: Make, outside: Outside, clock: FakeClock) -> None:
    outside.report = lambda _: Report(Verdict.SUCCEEDED)
    world = await make(z1=outside)
    world.receiver_up = False
    await world.register(callback=CallbackTarget(url=HOOK))
    await world.beat()
    clock.advance(SECONDS_A_DAY)

    assert await Janitor(world.engine, clock, 0.5, 0).sweep() == 0
    assert await ids(world) == ["d"]


async def test_a_sweep_goes_on_until_a_round_is_not_full(clock: FakeClock) -> None:
    engine = Upset(clock, ROUND, ROUND, 3)

    assert await Janitor(engine, clock, 2.0, 7).sweep() == 2 * ROUND + 3
    assert engine.asked == [(clock.now() - 2 * SECONDS_A_DAY, 7)] * 3


async def test_the_janitor_sweeps_every_minute_and_goes_on_when_a_sweep_failed(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    engine = Upset(clock, StoreFull("cannot write: the disk is full"), 0, 0)
    running = asyncio.ensure_future(Janitor(engine, clock, 1.0, 10).run())
    for rounds in range(3):
        await turns()
        clock.advance(EVERY / 2)
        await turns()
        assert len(engine.asked) == rounds
        clock.advance(EVERY / 2)
        await turns()
        assert len(engine.asked) == rounds + 1
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert caplog.records[0].getMessage() == "cannot remove old tasks: tried again in 60 s"
