"""Worlds around the tracking room: opened by the test, closed after it."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tornado.platform.asyncio import AsyncIOLoop

from task_daemon.clock import FakeClock
from task_daemon.core.ports import Backend
from task_daemon.tracking.manager import Limits
from tests.tracking.outside import Make, Outside, World
from tests.waiting import PATIENCE


@pytest.fixture
def make(io_loop: AsyncIOLoop, clock: FakeClock, short_path: Path) -> Iterator[Make]:
    """Opens a world: `await make(z1=backend, ..., directory=...)`. Closed before `short_path` is removed."""
    made: list[World] = []

    async def opened(directory: Path | None = None, limits: Limits | None = None, **backends: Backend) -> World:
        world = World(clock, directory, backends, limits or Limits())
        await world.open()
        made.append(world)
        return world

    yield opened
    for world in made:
        io_loop.run_sync(world.engine.close, timeout=PATIENCE)
        assert world.fatal == []


@pytest.fixture
def outside() -> Outside:
    return Outside()


@pytest.fixture
def world(io_loop: AsyncIOLoop, make: Make, outside: Outside) -> World:
    opened: World = io_loop.run_sync(lambda: make(z1=outside), timeout=PATIENCE)
    return opened


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Opened at the latest when the test is over, so that no thread hangs for ever."""
    event = threading.Event()
    yield event
    event.set()
