"""Limits: what is at a limit is taken, what is one over is refused by name, and nobody can wear the daemon out."""

import asyncio
import contextlib
import json
import resource
import shutil
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tornado.platform.asyncio import AsyncIOLoop

from task_daemon.api.server import ApiServer
from task_daemon.clock import FakeClock
from tests.api.conftest import World, turns_until
from tests.daemons import Daemon
from tests.receivers import Receiver
from tests.security.processes import answer, connected, descriptors, processor_seconds, request
from tests.waiting import PATIENCE, eventually

URL = "http://127.0.0.1:9/"
GOOD: dict[str, Any] = {"id": "d", "action": "backup", "zone": "play"}
CONFIG = """
[zones.play]
backend = "simulated"
scenario = [{ id = "quick*", finish_after = 0.01 }, { id = "*", finish_after = 3600 }]
poll_interval = 0.1
"""


def ask(
    connection: socket.socket, method: str, path: str, body: Any = None, headers: str = ""
) -> tuple[int, dict[str, str], Any]:
    connection.sendall(request(method, path, b"" if body is None else json.dumps(body).encode(), headers))
    status, names, raw = answer(connection)
    return status, names, json.loads(raw) if raw else None


@pytest.fixture(scope="module")
def path() -> Iterator[str]:
    """The socket of one daemon for all questions about requests; next to nothing is stored."""
    home = Path(tempfile.mkdtemp(prefix="td-"))
    with Daemon(home, CONFIG) as daemon:
        yield daemon.socket
    shutil.rmtree(home)


@pytest.fixture(scope="module")
def checker(path: str) -> Iterator[socket.socket]:
    with connected(path) as connection:
        yield connection


def labels(count: int, name: int = 2, value: int = 1) -> dict[str, str]:
    return {f"{n:0{name}d}": "v" * value for n in range(count)}


AT_AND_OVER: list[tuple[str, str, Any, Any]] = [
    ("id", "/id", "x" * 255, "x" * 256),
    ("id", "/id", "ü" * 255, "ü" * 256),
    ("id", "/id", "x", ""),
    ("id", "/id", "a~", "a\x7f"),
    ("action", "/action", "backup", "x" * 65),
    ("zone", "/zone", "play", "x" * 65),
    ("params", "/params", {}, []),
    ("job", "/job", "j" * 300, "j" * 301),
    ("job", "/job", "j", ""),
    ("region_task_id", "/region_task_id", "r" * 255, "r" * 256),
    ("region_task_id", "/region_task_id", 2**63 - 1, 1.5),
    ("timeout", "/timeout", 1, 0.999),
    ("timeout", "/timeout", 31_536_000, 31_536_001),
    ("poll_interval", "/poll_interval", 0.1, 0.099),
    ("poll_interval", "/poll_interval", 3600, 3600.1),
    ("labels", "/labels", labels(16), labels(17)),
    ("labels", "/labels", labels(1, name=64), labels(1, name=65)),
    ("labels", "/labels", labels(1, value=255), labels(1, value=256)),
    ("callback", "/callback/url", {"url": URL + "u" * (2048 - len(URL))}, {"url": URL + "u" * (2049 - len(URL))}),
    ("callback", "/callback/events", {"url": URL, "events": ["finished"] * 4}, {"url": URL, "events": ["finished"] * 5}),
    ("callback", "/callback/events", {"url": URL, "events": ["size"]}, {"url": URL, "events": []}),
    ("callback", "/callback/secret", {"url": URL}, {"url": URL, "secret": "s" * 65}),
    ("x_a", "/x_a", "y" * (4096 - len('{"x_a":""}')), "y" * (4097 - len('{"x_a":""}'))),
]


@pytest.mark.parametrize(
    ("member", "pointer", "at", "over"), AT_AND_OVER, ids=[f"{n}-{row[0]}" for n, row in enumerate(AT_AND_OVER)]
)
def test_f9_member_is_taken_at_its_limit_and_refused_by_name_beyond(
    checker: socket.socket, member: str, pointer: str, at: Any, over: Any
) -> None:
    status, _, body = ask(checker, "POST", "/v1/tasks?validate_only=true", GOOD | {member: at})
    assert status == 200, body
    status, _, body = ask(checker, "POST", "/v1/tasks?validate_only=true", GOOD | {member: over})
    assert (status, body["code"]) == (400, "invalid-body")
    assert [error["pointer"].startswith(pointer) for error in body["errors"]] == [True], body


def nested(levels: int) -> dict[str, Any]:
    inner: dict[str, Any] = {}
    for _ in range(levels - 3):
        inner = {"a": inner}
    return GOOD | {"x_a": inner}


def test_f9_body_is_taken_at_its_limits_and_refused_beyond(checker: socket.socket) -> None:
    path = "/v1/tasks?validate_only=true"
    many = {f"x_{n}": 1 for n in range(17)}
    seventeen = ask(checker, "POST", path, GOOD | many)
    del many["x_16"]
    assert (ask(checker, "POST", path, GOOD | many)[0], seventeen[0]) == (200, 400)
    room = 256 * 1024 - len(request("", "", json.dumps(GOOD).encode()).partition(b"\r\n\r\n")[2])
    for spaces, status in ((room, 200), (room + 1, 413)):
        checker.sendall(request("POST", path, json.dumps(GOOD).encode() + b" " * spaces))
        assert answer(checker)[0] == status
    assert ask(checker, "POST", path, nested(32))[0] == 200
    assert ask(checker, "POST", path, nested(70))[0] == 400
    for count, status in ((0, 400), (1001, 400)):
        assert ask(checker, "POST", "/v1/tasks:batch", {"tasks": [GOOD] * count})[0] == status
    unknown = {f"n{n}": 1 for n in range(20_000)}
    status, _, body = ask(checker, "POST", path, unknown)
    assert (status, len(body["errors"])) == (400, 100)
    assert ask(checker, "POST", path, GOOD, f"Idempotency-Key: {'k' * 128}\r\n")[0] == 200


def test_f9_header_is_taken_at_its_limit_and_cut_beyond(path: str) -> None:
    with connected(path) as fine, connected(path) as over:
        fine.sendall(request("GET", "/ping", headers=f"X: {'y' * 32_000}\r\n"))
        over.sendall(request("GET", "/ping", headers=f"X: {'y' * 33_000}\r\n"))
        assert (answer(fine)[0], answer(over)[0]) == (200, 0)


@pytest.mark.parametrize(
    ("limit", "status", "code"), [("live_tasks", 503, "queue-full"), ("live_tasks_per_uid", 429, "quota-exceeded")]
)
def test_live_tasks_are_taken_up_to_the_limit_and_refused_beyond(short_path: Path, limit: str, status: int, code: str) -> None:
    with Daemon(short_path, f"[limits]\n{limit} = 3\n{CONFIG}") as daemon, connected(daemon.socket) as connection:
        taken = [ask(connection, "POST", "/v1/tasks", GOOD | {"id": f"d{n}", "params": {}}) for n in range(3)]
        assert [found[0] for found in taken] == [202] * 3
        found, headers, body = ask(connection, "POST", "/v1/tasks", GOOD | {"id": "d3", "params": {}})
        assert (found, body["code"], body["retryable"]) == (status, code, True)
        assert int(headers["retry-after"]) > 0
        again, _, body = ask(connection, "POST", "/v1/tasks", GOOD | {"id": "d1", "params": {}})
        assert (again, body["uid"]) == (200, taken[1][2]["uid"]), "who repeats a registration is not refused"
        ask(connection, "POST", f"/v1/tasks/{taken[0][2]['uid']}/cancel", {})
        path = f"/v1/tasks/{taken[0][2]['uid']}?wait=20"
        assert ask(connection, "GET", path)[2]["done"]
        assert ask(connection, "POST", "/v1/tasks", GOOD | {"id": "d3", "params": {}})[0] == 202


# ------------------------------------------------------------------ slow and silent clients


@pytest.fixture
def world(io_loop: AsyncIOLoop, clock: FakeClock, short_path: Path) -> Iterator[World]:
    async def made() -> World:
        found = World(clock, short_path)
        await found.open()
        return found

    built: World = io_loop.run_sync(made, timeout=PATIENCE)
    yield built
    io_loop.run_sync(built.engine.close, timeout=PATIENCE)


@pytest.fixture
def server(world: World, io_loop: AsyncIOLoop, socket_path: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    for name in ("IDLE_TIMEOUT", "BODY_TIMEOUT", "ANSWER_TIMEOUT"):
        monkeypatch.setattr(f"task_daemon.api.server.{name}", 0.4)

    async def made() -> ApiServer:
        return ApiServer(world.app(), socket_path)

    found: ApiServer = io_loop.run_sync(made)
    found.start()
    yield found
    io_loop.run_sync(lambda: found.stop(1.0), timeout=PATIENCE)


@pytest.mark.parametrize("head", [b"", b"POST /v1/tasks HTTP/1.1\r\nHost: d\r\nContent-Length: 100000\r\n\r\n"])
async def test_client_that_dribbles_is_cut_at_the_deadline(server: ApiServer, socket_path: str, head: bytes) -> None:
    """A byte now and then does not move the deadline, neither for the header nor for the body."""
    over = threading.Event()

    def dribble() -> float:
        began = time.monotonic()
        with connected(socket_path) as connection:
            connection.sendall(head)
            while time.monotonic() - began < 60:
                try:
                    connection.sendall(b"G")
                except OSError:
                    break
                over.wait(0.02)
        return time.monotonic() - began

    assert 0.3 < await asyncio.to_thread(dribble) < 30
    await turns_until(lambda: not server._http.users)


async def test_client_that_does_not_read_is_cut_and_its_answer_given_up(
    world: World, server: ApiServer, socket_path: str, caplog: pytest.LogCaptureFixture
) -> None:
    with connected(socket_path) as silent:
        silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        silent.setblocking(False)
        body = json.dumps({"tasks": [GOOD | {"id": f"d{n}", "x_a": "y" * 4000, "params": {}} for n in range(20)]}).encode()
        silent.sendall(request("POST", "/v1/tasks:batch", body) + request("GET", "/v1/tasks?page_size=500") * 20)
        await turns_until(lambda: any(stream.writing() for stream in server._http.users))
        await turns_until(lambda: not server._http.users, 10)
    assert "did not read an answer" in caplog.text


async def test_client_that_reads_slowly_but_in_time_gets_all(server: ApiServer, socket_path: str) -> None:
    reader, writer = await asyncio.open_unix_connection(socket_path)
    body = json.dumps({"tasks": [GOOD | {"id": f"d{n}", "x_a": "y" * 4000, "params": {}} for n in range(20)]}).encode()
    writer.write(request("POST", "/v1/tasks:batch", body) + request("GET", "/v1/tasks?page_size=500") * 20)
    total = 0
    for _ in range(21):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length:")[2].split()[0])
        total += len(await reader.readexactly(length))
    assert total > 20 * 20 * 4000
    writer.close()
    await writer.wait_closed()


# ------------------------------------------------------------------ wearing out


def test_exhausted_descriptors_cost_no_processor_and_are_survived(short_path: Path) -> None:
    with Daemon(short_path, CONFIG) as daemon:
        with connected(daemon.socket) as kept:
            assert ask(kept, "GET", "/ping")[0] == 200
            usual = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
            resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (descriptors(daemon.pid) + 2, usual[1]))
            crowd = [connected(daemon.socket) for _ in range(30)]
            eventually("it has noticed", lambda: "cannot accept connections" in daemon.said())
            used, size = processor_seconds(daemon.pid), daemon.log.stat().st_size
            threading.Event().wait(2.0)
            assert processor_seconds(daemon.pid) - used < 0.5
            assert daemon.log.stat().st_size - size < 10_000
            assert ask(kept, "POST", "/v1/tasks", GOOD | {"params": {}})[0] == 202
            for connection in crowd:
                connection.close()
        with daemon.client() as client:
            assert client.ping()
        assert daemon.ended is None


def latencies(daemon: Daemon, prefix: str, count: int = 40) -> list[float]:
    """Seconds of each of so many registrations, one after the other."""
    found = []
    with connected(daemon.socket) as connection:
        for n in range(count):
            began = time.monotonic()
            assert ask(connection, "POST", "/v1/tasks", GOOD | {"id": f"{prefix}{n}", "params": {}})[0] == 202
            found.append(time.monotonic() - began)
    return found


def test_dead_receivers_slow_neither_registrations_nor_others_callbacks(short_path: Path) -> None:
    with Receiver() as good, socket.create_server(("127.0.0.1", 0), backlog=1) as hole, Daemon(short_path, CONFIG) as daemon:
        dead = [f"http://127.0.0.1:{hole.getsockname()[1]}/", *(f"http://127.0.0.{n}:9/" for n in range(2, 60))]
        batch = [GOOD | {"id": f"quick{n}", "params": {}, "callback": {"url": dead[n % len(dead)]}} for n in range(900)]
        with connected(daemon.socket) as connection:
            assert ask(connection, "POST", "/v1/tasks:batch", {"tasks": batch})[0] == 202
            with daemon.client() as client:
                eventually("the outbox is full", lambda: client.info()["status"]["outbox"]["in_memory"] > 500)
                began = time.monotonic()
                client.register("quick-good", "backup", "play", params={}, callback=good.url)
                good.wait(1)
                assert time.monotonic() - began < 8
        assert statistics.median(latencies(daemon, "later")) < 1


def test_five_hundred_idle_waiters_and_event_readers_block_no_registration(short_path: Path) -> None:
    limits = "[limits]\nconnections = 600\nconnections_per_uid = 600\n"
    with Daemon(short_path, limits + CONFIG) as daemon, connected(daemon.socket) as first:
        usual = statistics.median(latencies(daemon, "a"))
        _, _, task = ask(first, "POST", "/v1/tasks", GOOD | {"id": "waited-for", "params": {}})
        waiters = [connected(daemon.socket) for _ in range(500)]
        paths = (f"/v1/tasks/{task['uid']}?wait=300", f"/v1/tasks/{task['uid']}/events?after=1000000&wait=300")
        for number, waiter in enumerate(waiters):
            waiter.sendall(request("GET", paths[number % 2]))
        under_load = statistics.median(latencies(daemon, "b"))
        print(f"median of a registration: {usual * 1000:.1f} ms alone, {under_load * 1000:.1f} ms with 500 waiting")
        assert under_load < 1
        ask(first, "POST", f"/v1/tasks/{task['uid']}/cancel", {})
        assert {answer(waiter)[0] for waiter in waiters[::2]} == {200}
        for waiter in waiters:
            waiter.close()


def test_connections_in_all_are_limited_and_each_place_is_free_again(short_path: Path) -> None:
    with Daemon(short_path, "[limits]\nconnections = 5\n") as daemon:
        eventually("the probe of the start is gone", lambda: answer_to_ping(daemon) == 200)
        for _ in range(3):
            crowd = [connected(daemon.socket) for _ in range(5)]
            eventually("one more is refused", lambda: answer_to_ping(daemon) == 503)
            for connection in crowd:
                connection.close()
            eventually("there is room again", lambda: answer_to_ping(daemon) == 200)


def answer_to_ping(daemon: Daemon) -> int:
    with connected(daemon.socket) as connection:
        with contextlib.suppress(BrokenPipeError):
            connection.sendall(request("GET", "/ping"))
        return answer(connection)[0]
