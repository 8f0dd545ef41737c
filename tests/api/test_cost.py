"""What a registration costs, counted in calls: no clock, so the same on every machine."""

import asyncio
import json
import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from tornado.platform.asyncio import AsyncIOLoop

from task_daemon.api.server import ApiServer
from tests.api.conftest import World

OF_TORNADO = 2
"""A request that Tornado's handlers answer costs at least so many times as much: the reason for the hot path
(measured: 281 and 1,514
calls; up to 510 when the threads meet badly)."""
ROUNDS = 15


class Counting:
    """Calls on the thread that it is switched on for."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, frame: object, event: str, argument: object) -> None:
        if event in ("call", "c_call"):
            self.calls += 1


@pytest.fixture
def server(world: World, io_loop: AsyncIOLoop, socket_path: str) -> Iterator[ApiServer]:
    async def made() -> ApiServer:
        return ApiServer(world.app(), socket_path)

    found: ApiServer = io_loop.run_sync(made)
    found.start()
    yield found
    io_loop.run_sync(lambda: found.stop(1.0), timeout=10)


async def cost(path: str, headers: str) -> int:
    """Calls for one registration: the least of some in lockstep, sent from another thread, whose calls do not count."""
    counting, loop = Counting(), asyncio.get_running_loop()

    def sent(name: str) -> int:
        for _ in range(3):  # the loop is done with the one before and waits
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(20)
        body = json.dumps({"id": name, "action": "backup", "zone": "play"}).encode()
        before = counting.calls
        head = f"POST /v1/tasks HTTP/1.1\r\nHost: u\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        assert b" 202 " in connection.recv(65_536)
        return counting.calls - before

    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(path)

        def run() -> list[int]:
            return [sent(f"{headers[:5]}-{n}") for n in range(ROUNDS)]

        pending = asyncio.ensure_future(asyncio.to_thread(run))
        before: Any = sys.getprofile()
        sys.setprofile(counting)
        try:
            taken = await pending
        finally:
            sys.setprofile(before)
    return min(taken)


async def test_the_hot_path_is_worth_having(world: World, server: ApiServer, socket_path: str) -> None:
    await world.engine.pause("play", True)
    world.manager._limits = type(world.manager._limits)(1000, 1000)
    hot, other = await cost(socket_path, ""), await cost(socket_path, "X-Look: at this\r\n")

    assert other >= hot * OF_TORNADO, (hot, other)
