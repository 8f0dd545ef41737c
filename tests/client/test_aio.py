"""`AsyncClient` against a server that misbehaves, and against the real daemon."""

import asyncio
import gc
import inspect
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import aclosing, suppress
from pathlib import Path

import pytest

from task_client import AsyncClient, Client, aio
from task_client.errors import AnswerUnknown, DaemonUnreachable, RequestRefused, TaskFailed, WaitTimeout
from tests.client.scripted import Reply, ScriptedServer, problem, task
from tests.daemons import Daemon

CONFIG = """
[zones.sim]
backend = "simulated"
poll_interval = 0.1
scenario = [
  { id = "long*", finish_after = 300 },
  { id = "broken*", finish_after = 0.2, fail_at = 50, message = "No space left" },
  { finish_after = 0.2 },
]
"""
PUBLIC = sorted(name for name, _ in inspect.getmembers(Client, inspect.isfunction) if not name.startswith("_"))
GO_ON = {"list", "watch", "watch_many", "events"}


@pytest.fixture
def client(socket_path: str) -> AsyncClient:
    return AsyncClient(socket_path, timeout=5.0)


@pytest.fixture
def daemon(short_path: Path) -> Iterator[Daemon]:
    with Daemon(short_path, CONFIG) as running:
        yield running


@pytest.fixture
def real(daemon: Daemon) -> AsyncClient:
    return AsyncClient(daemon.socket, timeout=20.0)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_method_of_the_client_is_there_with_the_same_arguments(name: str) -> None:
    there, here = inspect.signature(getattr(Client, name)), inspect.signature(getattr(AsyncClient, name))

    assert [str(each) for each in here.parameters.values()] == [str(each) for each in there.parameters.values()]
    method = getattr(AsyncClient, name)
    if name in GO_ON:
        assert inspect.isasyncgenfunction(method)
    elif name != "close":
        assert inspect.iscoroutinefunction(method)


# --------------------------------------------------------------------------- trouble


async def test_registration_is_sent_again_with_its_key_when_the_answer_got_lost(
    server: ScriptedServer, client: AsyncClient
) -> None:
    server.on("POST", "/v1/tasks", Reply(drop=True), Reply(202, task()))

    assert (await client.register("disk-1", "backup", "vm1", params={})).uid == "u1"

    first, second = server.asked
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
    assert first.raw == second.raw
    assert first.body == {"id": "disk-1", "action": "backup", "zone": "vm1", "params": {}}


async def test_resolving_is_not_repeated_when_the_answer_got_lost(server: ScriptedServer, client: AsyncClient) -> None:
    server.on("POST", "/v1/tasks/u1/resolve", Reply(drop=True))

    with pytest.raises(
        AnswerUnknown, match="cannot tell whether POST /v1/tasks/u1/resolve was carried out: the connection broke"
    ):
        await client.resolve("u1", "failed", "seen in the log")

    assert len(server.asked) == 1


async def test_a_refusal_is_raised_with_its_code(server: ScriptedServer, client: AsyncClient) -> None:
    server.on("POST", "/v1/tasks", problem(503, "degraded", "the disk is gone", retry_after=30))

    with pytest.raises(RequestRefused, match="the disk is gone") as caught:
        await client.register("disk-1", "backup", "vm1")

    assert (caught.value.code, caught.value.retry_after, len(server.asked)) == ("degraded", 30.0, 1)


async def test_nothing_was_sent_when_the_socket_is_absent(client: AsyncClient) -> None:
    with pytest.raises(DaemonUnreachable, match=r"no such socket.*taskctl start"):
        await client.ping()


async def test_unreachable_is_busy_when_the_backlog_is_full(socket_path: str) -> None:
    client = AsyncClient(socket_path, timeout=0.2)
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(socket_path)
        listener.listen(0)
        first.connect(socket_path)

        with pytest.raises(DaemonUnreachable) as caught:
            await client.ping()

    assert caught.value.busy


async def test_a_path_that_is_too_long_for_the_kernel_is_reached(short_path: Path) -> None:
    home = short_path / ("d" * 120)
    home.mkdir()
    server = ScriptedServer(str(short_path / "t.sock"))
    try:
        (short_path / "t.sock").rename(home / "s.sock")
        server.on("GET", "/ping", Reply(body="pong"))
        assert await AsyncClient(str(home / "s.sock")).ping()
    finally:
        server.stop()


async def test_answer_is_unknown_when_time_is_up(server: ScriptedServer, socket_path: str) -> None:
    go = threading.Event()
    server.on("POST", "/v1/callbacks/c1/replay", Reply(after=go))
    try:
        with pytest.raises(AnswerUnknown, match=r"no answer within 0\.2 s"):
            await AsyncClient(socket_path, timeout=0.2).replay("c1")
    finally:
        go.set()


async def test_who_is_cancelled_leaves_no_connection_behind(socket_path: str, client: AsyncClient) -> None:
    asked, left = asyncio.Event(), asyncio.Event()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await reader.read()
        left.set()
        writer.close()

    async with await asyncio.start_unix_server(hold, socket_path):
        waiting = asyncio.create_task(client.wait("u1"))
        await asked.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        async with asyncio.timeout(20):
            await left.wait()


async def test_who_turns_away_from_a_stream_leaves_nothing_behind(
    socket_path: str, client: AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    async def tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for seq in range(1, 60):
            block = f'id: {seq}\ndata: {{"seq": {seq}, "uid": "u1", "type": "task.running", "x": "{"x" * 100_000}"}}\n\n'.encode()
            writer.write(f"{len(block):x}\r\n".encode() + block + b"\r\n")
        with suppress(ConnectionResetError):
            await reader.read()
        writer.close()

    before = asyncio.all_tasks()
    async with await asyncio.start_unix_server(tell, socket_path):
        async with aclosing(client.events(progress=True)) as events:  # type: ignore[type-var]
            assert [(await anext(events)).seq for _ in range(3)] == [1, 2, 3]
            for _ in range(2000):  # more comes than is kept for a reader who is slow
                await asyncio.sleep(0)
        async with asyncio.timeout(20):
            while asyncio.all_tasks() - before:
                await asyncio.sleep(0.01)
    gc.collect()

    assert caplog.messages == []  # asyncio would say of a task that nobody can wake any more that it was destroyed


async def test_who_gets_no_turn_to_wait_is_told_in_time(
    server: ScriptedServer, socket_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aio, "HELD", 1)
    go = threading.Event()
    server.on("GET", "/v1/tasks/u1", Reply(after=go, body=task(state="succeeded")))
    server.on("GET", "/v1/tasks/u2", Reply(body=task("u2")))
    server.on("GET", "/ping", Reply(body="pong"))
    client = AsyncClient(socket_path)
    first = asyncio.create_task(client.wait("u1"))
    while not server.asked:
        await asyncio.sleep(0)

    with pytest.raises(WaitTimeout):
        await client.wait("u2", timeout=0.2)
    assert await client.ping()  # what is not held has places of its own
    assert not first.done()
    go.set()

    assert (await first).succeeded
    assert next(asked.query for asked in server.asked if asked.path == "/v1/tasks/u2") == [("wait", "0")]


async def test_only_so_many_requests_are_under_way_at_once(socket_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aio, "AT_ONCE", 2)
    open_: set[asyncio.StreamWriter] = set()
    most = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal most
        open_.add(writer)
        most = max(most, len(open_))
        await reader.readuntil(b"\r\n\r\n")
        for _ in range(20):  # time for the others to come
            await asyncio.sleep(0)
        open_.discard(writer)
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n"pong"')
        writer.close()

    async with await asyncio.start_unix_server(answer, socket_path):
        client = AsyncClient(socket_path)
        assert await asyncio.gather(*(client.ping() for _ in range(8))) == [True] * 8

    assert most == 2


# --------------------------------------------------------------------------- the real daemon


async def test_work_is_registered_watched_and_waited_for(real: AsyncClient) -> None:
    async with real:
        one = await real.register("disk-1", "backup", "sim", labels={"rack": "a7"})
        seen = [each.state async for each in real.watch(one.uid, timeout=60)]
        two, broken = await real.register_many(
            [{"id": name, "action": "backup", "zone": "sim"} for name in ("disk-2", "broken-1")]
        )

        assert seen[-1] == "succeeded"
        assert (await real.wait(two.uid, timeout=60)).succeeded
        with pytest.raises(TaskFailed, match="No space left"):
            await real.wait(broken.uid, timeout=60, raise_on_failure=True)
        assert [each.uid async for each in real.list(page_size=1)] == [broken.uid, two.uid, one.uid]
        assert [each.uid async for each in real.list(labels={"rack": "a7"}, state=["succeeded", "failed"])] == [one.uid]
        assert [event.type async for event in real.events(one.uid)][:2] == ["task.registered", "task.running"]
        known = await real.get(one.uid)
        assert known is not None
        assert await real.get(one.uid, etag=known.revision) is None
        await real.delete(one.uid)
        with pytest.raises(RequestRefused) as caught:
            await real.get(one.uid)
        assert caught.value.code == "gone"


async def test_all_or_any_of_many_are_waited_for_and_watched(real: AsyncClient) -> None:
    long = await real.register("long-1", "backup", "sim")
    short = await real.register("disk-1", "backup", "sim")
    uids = [long.uid, short.uid]

    assert [each.uid for each in await real.wait_many(uids, until="any", timeout=60)] == [short.uid]
    with pytest.raises(WaitTimeout):
        await real.wait_many(uids, timeout=0.2)
    with pytest.raises(WaitTimeout) as caught:
        [each async for each in real.watch_many(uids, timeout=0.2, every=0.1)]
    assert caught.value.uids == (long.uid,)
    assert (await real.cancel(long.uid, stop_tracking=True)).state == "cancelled"
    assert [each.state for each in await real.wait_many(uids, timeout=60)] == ["cancelled", "succeeded"]
    assert {(each.uid, each.state) async for each in real.watch_many(uids)} == {
        (long.uid, "cancelled"),
        (short.uid, "succeeded"),
    }


async def test_callbacks_are_listed_replayed_and_acknowledged(real: AsyncClient) -> None:
    uids = [(await real.register(f"disk-{n}", "backup", "sim", callback="http://127.0.0.1:9/x")).uid for n in range(3)]
    await real.wait_many(uids, timeout=60)

    assert {each.uid for each in await real.callbacks()} == set(uids)
    assert len(await real.callbacks(limit=2)) == 2
    (callback,) = await real.callbacks(uids[0])
    assert (await real.callback(callback.id)).url == "http://127.0.0.1:9/x"
    assert (await real.ack(callback.id)).state == "acked"
    assert [each.id for each in await real.callbacks(state="acked")] == [callback.id]
    assert await real.callbacks(uids[1], state="acked") == []
    assert (await real.replay(callback.id)).state == "pending"


async def test_the_daemon_itself_is_asked(real: AsyncClient, daemon: Daemon) -> None:
    long = await real.register("long-1", "backup", "sim")
    await real.poll(long.uid)
    with daemon.client() as there:
        assert (await real.info())["boot_id"] == there.info()["boot_id"]
        assert await real.actions() == there.actions()
        assert set(await real.explain(long.uid)) == set(there.explain(long.uid))
        assert await real.configuration() == there.configuration()
    assert await real.ping()
    assert await real.healthz()
    assert await real.readyz()
    assert {zone["zone"] for zone in await real.zones()} >= {"sim"}
    await real.pause_zone("sim")
    await real.resume_zone("sim")
    assert (await real.check_store())["ok"]
    assert await real.recent_log()
    assert "task_daemon_" in await real.metrics()
    assert await real.post_legacy({"action": "backup", "id": "old-1", "zone": "sim"}) == ""
    with pytest.raises(RequestRefused) as caught:
        await real.resolve(long.uid, "failed")
    assert caught.value.code == "not-lost"


async def test_body_of_20_mb_is_refused_as_too_large(real: AsyncClient) -> None:
    with pytest.raises(RequestRefused) as caught:
        await real.register("d", "command", "local", params={"argv": ["x" * 20_000_000]})

    assert (caught.value.status, caught.value.code) == (413, "too-large")


async def test_more_calls_than_the_daemon_takes_connections_are_made_at_once(real: AsyncClient) -> None:
    tasks = await asyncio.gather(*(real.register(f"disk-{n}", "backup", "sim") for n in range(300)))

    ended = await asyncio.gather(*(real.wait(each.uid, timeout=60) for each in tasks))

    assert len({each.uid for each in ended if each.succeeded}) == 300


@pytest.mark.crash
async def test_wait_and_events_go_on_when_the_daemon_is_killed(real: AsyncClient, daemon: Daemon) -> None:
    long = await real.register("long-1", "backup", "sim")
    waiting = asyncio.create_task(real.wait(long.uid, timeout=60))
    seen, killed = [], False
    async with aclosing(real.events(progress=True)) as events:  # type: ignore[type-var]
        async for event in events:
            seen.append(event)
            if event.type == "progress" and not killed:
                killed = True
                await asyncio.to_thread(daemon.signal, signal.SIGKILL)
                await asyncio.to_thread(daemon.wait)
                await asyncio.to_thread(daemon.start)
                await real.cancel(long.uid, stop_tracking=True)
            if event.type == "task.cancelled":
                break

    assert (await waiting).state == "cancelled"
    stored = [event.seq async for event in real.events()]
    assert [event.seq for event in seen if event.seq] == stored[: len([event for event in seen if event.seq])]


async def test_a_stream_of_a_task_that_is_not_there_is_refused(real: AsyncClient) -> None:
    with pytest.raises(RequestRefused) as caught:
        async for _ in real.events("nowhere", progress=True):
            pass

    assert caught.value.code == "not-found"
