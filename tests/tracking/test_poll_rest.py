"""How soon a new task is looked at after a poll that took long: a slow backend costs this machine nothing, work does."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from task_daemon.clock import FakeClock
from task_daemon.core.model import Report, Task
from tests.tracking.outside import Make, Outside


@pytest.mark.parametrize("on_disk", [False, True])
async def test_new_task_waits_twice_as_long_as_the_backend_took(
    make: Make, outside: Outside, clock: FakeClock, short_path: Path, on_disk: bool
) -> None:
    world = await make(short_path if on_disk else None, z1=outside)

    def slow(tasks: Sequence[Task]) -> dict[str, Report]:
        clock.advance(0.5)
        return outside.one_by_one(tasks)

    outside.answer = slow
    await world.register("first")
    await world.pass_(0.05)
    assert outside.polls == [["first"]]
    ended = clock.now()
    second = await world.register("second")

    assert world.engine.times(second).next_poll_at == pytest.approx(ended + 1.0)
    await world.pass_(0.9)
    assert len(outside.polls) == 1
    await world.pass_(0.2)
    assert outside.polls[1] == ["second"]
