"""The socket: who may connect from which moment on, how many, and how it ends. Over a real socket, with the real server."""

import asyncio
import errno
import json
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tornado.platform.asyncio import AsyncIOLoop

from task_daemon.api.context import Phase
from task_daemon.api.server import ApiServer, ListenError, listen
from tests.api.conftest import World, turns_until
from tests.waiting import PATIENCE

PING = b"GET /ping HTTP/1.1\r\nHost: u\r\n\r\n"
REGISTRATION = b'{"id": "d-1", "action": "backup", "zone": "play"}'
REGISTER = b"POST /v1/tasks HTTP/1.1\r\nHost: u\r\nContent-Length: %d\r\n\r\n%s" % (len(REGISTRATION), REGISTRATION)


class Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the next answer. The status is 0 when the connection has ended."""
        try:
            head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 20)
        except (asyncio.IncompleteReadError, ConnectionError):
            return 0, {}, b""
        first, *lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines if line)
        body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return int(first.split()[1]), headers, body

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except ConnectionError:
            return


@pytest.fixture
def server(world: World, io_loop: AsyncIOLoop, socket_path: str) -> Iterator[ApiServer]:
    async def made() -> ApiServer:
        return ApiServer(world.app(), socket_path, mode=0o620, connections=6, connections_per_uid=4)

    found: ApiServer = io_loop.run_sync(made)
    found.start()
    yield found
    io_loop.run_sync(lambda: found.stop(1.0), timeout=PATIENCE)


async def connected(path: str) -> Connection:
    return Connection(*await asyncio.open_unix_connection(path))


async def test_the_socket_answers_and_has_the_mode_asked_for(server: ApiServer, socket_path: str) -> None:
    client = await connected(socket_path)
    client.send(PING)

    assert (await client.answer())[::2] == (200, b'"pong"')
    assert stat.S_IMODE(os.stat(socket_path).st_mode) == 0o620
    assert os.listdir(os.path.dirname(socket_path)) == [os.path.basename(socket_path)]
    await client.close()


def test_the_mode_is_never_wider_than_asked_when_the_socket_is_made(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes = []
    real = os.chmod

    def seen(path: str, mode: int, *, dir_fd: int) -> None:
        modes.append(stat.S_IMODE(os.lstat(path, dir_fd=dir_fd).st_mode))
        assert not (short_path / "s").exists()
        real(path, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "chmod", seen)
    sock, _ = listen(str(short_path / "s"), 0o666, None)
    sock.close()

    assert modes == [0o600]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files to any group")
def test_the_socket_belongs_to_the_group_asked_for(short_path: Path) -> None:
    sock, _ = listen(str(short_path / "s"), 0o660, 4711)
    sock.close()

    assert os.stat(short_path / "s").st_gid == 4711


def test_a_dead_socket_is_replaced(short_path: Path) -> None:
    path = str(short_path / "s")
    dead, before = listen(path, 0o600, None)
    dead.close()
    sock, after = listen(path, 0o600, None)
    with sock, socket.socket(socket.AF_UNIX) as client:
        client.connect(path)

    assert before != after


def test_what_is_no_socket_is_not_replaced(short_path: Path) -> None:
    (short_path / "s").write_text("precious")

    with pytest.raises(ListenError, match="no socket; move it away"):
        listen(str(short_path / "s"), 0o600, None)
    assert (short_path / "s").read_text() == "precious"
    assert os.listdir(short_path) == ["s"]


def test_nothing_is_left_behind_when_the_socket_cannot_be_moved_into_place(
    short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any, **__: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "rename", failing)

    with pytest.raises(ListenError, match="Input/output error"):
        listen(str(short_path / "s"), 0o600, None)
    assert os.listdir(short_path) == []


def test_a_missing_directory_is_named(short_path: Path) -> None:
    with pytest.raises(ListenError, match="absent: No such file"):
        listen(str(short_path / "absent" / "s"), 0o600, None)


def test_a_path_longer_than_a_socket_name_works(short_path: Path) -> None:
    deep = short_path / ("a" * 100) / ("b" * 100)
    deep.mkdir(parents=True)
    sock, inode = listen(str(deep / "s"), 0o600, None)
    sock.close()

    found = os.stat(deep / "s")
    assert (found.st_dev, found.st_ino) == inode


async def test_f14_connections_beyond_a_users_limit_are_told_so(server: ApiServer, socket_path: str) -> None:
    clients = [await connected(socket_path) for _ in range(4)]
    for client in clients:
        client.send(PING)
        assert (await client.answer())[0] == 200
    late = await connected(socket_path)
    status, headers, body = await late.answer()

    assert status == 503
    assert headers["retry-after"] == "1"
    assert json.loads(body)["retryable"] is True
    for client in [*clients, late]:
        await client.close()


async def test_a_place_is_free_again_when_a_connection_has_ended(server: ApiServer, socket_path: str) -> None:
    for _ in range(20):
        client = await connected(socket_path)
        client.send(PING)
        assert (await client.answer())[0] == 200
        await client.close()
        await turns_until(lambda: not server._http.users)

    assert server._http.by_user == {}


async def test_accepting_pauses_when_descriptors_have_run_out(
    server: ApiServer, socket_path: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Exhausted:
        calls = 0

        def accept(self) -> Any:
            self.calls += 1
            raise OSError(errno.EMFILE, "Too many open files")

        def fileno(self) -> int:
            return server._listening[0].fileno()

    monkeypatch.setattr("task_daemon.api.server.ACCEPT_PAUSE", 0.05)
    real, exhausted = server._listening[0], Exhausted()
    server._accept(exhausted, 0)  # type: ignore[arg-type]
    client = await connected(socket_path)
    client.send(PING)
    await asyncio.sleep(0)

    assert exhausted.calls == 1
    assert "cannot accept connections" in caplog.text
    server._resume(real)
    assert (await client.answer())[0] == 200
    await client.close()


async def test_an_answer_in_flight_goes_out_when_the_server_stops(world: World, server: ApiServer, socket_path: str) -> None:
    client, idle = await connected(socket_path), await connected(socket_path)
    gate, engine_add = asyncio.Event(), world.engine.add

    async def slow(new: Any, meanwhile: Any = None) -> Any:
        await gate.wait()
        return await engine_add(new, meanwhile)

    world.engine.add = slow  # type: ignore[method-assign]
    client.send(REGISTER)
    await turns_until(lambda: server._api.in_flight)
    world.phase = Phase("draining")
    stopping = asyncio.ensure_future(server.stop(20.0))
    await turns_until(lambda: not os.path.exists(socket_path))
    idle.send(REGISTER)
    refused, headers, body = await idle.answer()
    gate.set()
    status, _, _ = await client.answer()
    await stopping

    assert (refused, json.loads(body)["code"], headers["connection"]) == (503, "draining", "close")
    assert status == 202
    assert (await client.answer())[0] == 0
    await client.close()
    await idle.close()


async def test_waiting_clients_are_answered_when_the_server_stops(world: World, server: ApiServer, socket_path: str) -> None:
    client = await connected(socket_path)
    client.send(REGISTER)
    uid = json.loads((await client.answer())[2])["uid"]
    client.send(b"GET /v1/tasks/%s?wait=300 HTTP/1.1\r\nHost: u\r\n\r\n" % uid.encode())
    await turns_until(lambda: server._api.in_flight)
    await server.stop(20.0)
    status, _, body = await client.answer()

    assert (status, json.loads(body)["done"]) == (200, False)
    await client.close()


async def test_stopping_ends_at_the_deadline_when_an_answer_hangs(
    world: World, server: ApiServer, socket_path: str, caplog: pytest.LogCaptureFixture
) -> None:
    client = await connected(socket_path)
    world.engine.add = lambda new, meanwhile=None: asyncio.Event().wait()  # type: ignore[method-assign, assignment, return-value]
    client.send(REGISTER)
    await turns_until(lambda: server._api.in_flight)
    await server.stop(0.05)

    assert (await client.answer())[0] == 0
    assert "1 requests were not answered" in caplog.text
    await client.close()


async def test_the_socket_of_a_successor_is_left_alone(server: ApiServer, socket_path: str) -> None:
    os.unlink(socket_path)
    successor, _ = listen(socket_path, 0o600, None)
    await server.stop(1.0)
    successor.close()

    assert os.path.exists(socket_path)


async def test_an_inherited_socket_is_served_and_left_in_place(world: World, short_path: Path) -> None:
    path = str(short_path / "inherited")
    inherited, _ = listen(path, 0o600, None)
    server = ApiServer(world.app(), str(short_path / "unused"))
    server.adopt(inherited.detach())
    client = await connected(path)
    client.send(PING)

    assert (await client.answer())[0] == 200
    await server.stop(1.0)
    assert os.path.exists(path)
    await client.close()


async def test_a_descriptor_that_is_no_listening_socket_is_refused(world: World, short_path: Path) -> None:
    server = ApiServer(world.app(), str(short_path / "unused"))
    read, write = os.pipe()
    with socket.socket(socket.AF_UNIX) as unbound:
        for fd in (read, unbound.fileno()):
            with pytest.raises(ListenError, match=f"descriptor {fd}"):
                server.adopt(fd)
    os.close(read)
    os.close(write)


async def test_a_header_block_without_end_is_cut_off(server: ApiServer, socket_path: str) -> None:
    client = await connected(socket_path)
    client.send(b"GET /ping HTTP/1.1\r\nX: " + b"a" * 40_000)

    assert (await client.answer())[0] == 0
    await client.close()
