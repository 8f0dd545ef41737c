"""The engines that all must do the same."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tornado.platform.asyncio import AsyncIOLoop

from task_daemon.clock import FakeClock
from tests.contract.engine_case import ENGINES, Case


@pytest.fixture(params=ENGINES)
def case(request: pytest.FixtureRequest, io_loop: AsyncIOLoop, short_path: Path, clock: FakeClock) -> Iterator[Case]:
    case = Case(request.param, short_path, clock)
    io_loop.run_sync(case.open)
    case.polls.clear()
    yield case
    case.hold.set()
    for gate in case.gates.values():
        gate.cancel()
    io_loop.run_sync(case.engine.close)
    assert case.fatal == []
