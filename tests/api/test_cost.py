"""What a registration costs in everything that is not the store: from the bytes of the request to those of the answer. Counted,
not timed, and held against test_cost.json; how that is renewed says tests/costs.py."""

import asyncio
import gc
import json
import logging
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

import pytest
from tornado.platform.asyncio import AsyncIOLoop

from task_daemon.api import bodies
from task_daemon.api.server import ApiServer
from task_daemon.core.ports import Added, NewTask
from task_daemon.tracking.manager import Limits
from tests.api.conftest import ROOT, World
from tests.costs import Calls, counted, expect_cost

OF_TORNADO = 4
"""A request that Tornado's handlers answer costs at least so many times as much: the reason for the hot path."""
ROUNDS = 15
MANY = 100
RICH: dict[str, Any] = {
    "callback": {"url": "http://127.0.0.1:9000/done"},
    "region_task_id": "r-1",
    "labels": {"tenant": "a"},
    "timeout": 3600,
}


@pytest.fixture
def server(
    world: World, io_loop: AsyncIOLoop, socket_path: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ApiServer]:
    """Its engine answers at once and remembers nothing."""

    async def add(new: Sequence[NewTask], meanwhile: Callable[[], None]) -> list[Added]:
        meanwhile()
        return [Added(each.task) for each in new]

    async def made() -> ApiServer:
        return ApiServer(world.app(), socket_path)

    caplog.set_level(logging.WARNING, "task_daemon.api")
    monkeypatch.setattr(world.engine, "add", add)
    monkeypatch.setattr(world.engine, "wake_owner", lambda owner_uid: None)
    world.manager._limits = Limits()
    found: ApiServer = io_loop.run_sync(made)
    found.start()
    yield found
    io_loop.run_sync(lambda: found.stop(1.0), timeout=10)


def a_task(name: str, **members: Any) -> dict[str, Any]:
    return {"id": name, "action": "backup", "zone": "play"} | members


class Turns(Calls):
    """Counts the turns of the event loop: in each the kernel is asked once."""

    def __call__(self, frame: FrameType, event: str, what: Any) -> None:
        self.made += event == "c_call" and what.__qualname__ == "epoll.poll"


async def calls_for(path: str, body: Callable[[str], Any], headers: str = "", calls: Calls | None = None) -> int:
    """Calls on the loop's thread for one request, sent from another: the least of some in lockstep, without those that it takes
    to ask how many there were."""
    calls, loop = calls or Calls(), asyncio.get_running_loop()

    async def so_far() -> int:
        return calls.made

    def mark() -> int:
        return asyncio.run_coroutine_threadsafe(so_far(), loop).result(20)

    def sent(name: str) -> tuple[int, int]:
        request = asked(body(name), headers.replace("NAME", name))
        marks = [mark(), mark(), mark()]
        connection.sendall(request)
        answer = connection.recv(1 << 20)
        assert b" 202 " in answer
        head, _, rest = answer.partition(b"\r\n\r\n")
        left = int(head.lower().partition(b"content-length: ")[2].split()[0]) - len(rest)
        while left > 0:
            left -= len(connection.recv(1 << 20))
        return mark() - marks[2], marks[2] - marks[1]

    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(path)
        pending = asyncio.ensure_future(asyncio.to_thread(lambda: [sent(f"d-{n:02}") for n in range(ROUNDS)]))
        with counted(calls):
            taken = await pending
    return min(each for each, _ in taken) - min(asking for _, asking in taken)


def asked(body: Any, headers: str) -> bytes:
    path, raw = "/v1/tasks:batch" if "tasks" in body else "/v1/tasks", json.dumps(body).encode()
    return f"POST {path} HTTP/1.1\r\nHost: u\r\n{headers}Content-Length: {len(raw)}\r\n\r\n".encode() + raw


async def test_a_registration_costs_what_it_did(server: ApiServer, socket_path: str) -> None:
    plain = await calls_for(socket_path, a_task)
    other = await calls_for(socket_path, a_task, "X-Look: at this\r\n")
    keyed = await calls_for(socket_path, a_task, "Idempotency-Key: NAME\r\n")
    rich = await calls_for(socket_path, lambda name: a_task(name, **RICH))

    expect_cost(__file__, "one registration", plain)
    expect_cost(__file__, "one registration with an Idempotency-Key", keyed)
    expect_cost(__file__, "one registration with a callback", rich)
    assert other >= plain * OF_TORNADO, (plain, other)


async def test_a_registration_is_answered_in_the_turn_in_which_it_has_come(server: ApiServer, socket_path: str) -> None:
    """Of the event loop, here where the store answers at once."""
    assert await calls_for(socket_path, a_task, calls=Turns()) == 1


async def test_an_entry_of_a_batch_costs_what_it_did(server: ApiServer, socket_path: str) -> None:
    def batch(count: int, **members: Any) -> Callable[[str], Any]:
        return lambda name: {"tasks": [a_task(f"{name}-{n}", **members) for n in range(count)]}

    few, many = [await calls_for(socket_path, batch(count)) for count in (MANY, 2 * MANY)]
    rich = [await calls_for(socket_path, batch(count, **RICH)) for count in (MANY, 2 * MANY)]

    expect_cost(__file__, "one entry of a batch", (many - few) / MANY)
    expect_cost(__file__, "one entry of a batch with a callback", (rich[1] - rich[0]) / MANY)


async def test_an_entry_of_a_batch_takes_the_memory_it_did(world: World, server: ApiServer) -> None:
    """Blocks that are allocated for it when its answer is written: what was read, the task, its view."""
    owner = world.api.access.judge(ROOT).owner

    def held(count: int) -> int:
        raw = json.dumps({"tasks": [a_task(f"d-{n}") for n in range(count)]}).encode()
        gc.collect()
        before = sys.getallocatedblocks()
        read = bodies.batch(raw)
        tasks = world.manager.validate(read, owner)
        views, _ = world.manager.fresh(tasks)
        assert len(views) == count
        return sys.getallocatedblocks() - before

    gc.disable()
    try:
        few, many = (min(held(count) for _ in range(ROUNDS)) for count in (MANY, 2 * MANY))
    finally:
        gc.enable()
    expect_cost(__file__, "memory of one entry of a batch", (many - few) / MANY, "blocks")
