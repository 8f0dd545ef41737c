"""The hot requests: answered without Tornado's request handlers, to the same effect. Over a real socket, with the real server."""

import asyncio
import json
import logging
import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tornado.platform.asyncio import AsyncIOLoop

from task_daemon.api.connection import END_OF_HEAD
from task_daemon.api.context import Phase
from task_daemon.api.hot import Hot, _read_head, read_head
from task_daemon.api.server import ApiServer
from task_daemon.core.errors import OutcomeUnknown
from tests.api.conftest import OPERATOR, STRANGER, World, turns_until

GOOD = {"id": "d-1", "action": "backup", "zone": "play"}
RUN = GOOD | {"id": "quick-1", "params": {}, "labels": {"a": "ü"}, "x_own": [1], "timeout": 60}
CHANGING = re.compile(
    rb"(Date: |Content-Length: |X-Request-Id: |/v1/tasks/|watched as task |"
    rb"\"uid\":\"|\"task-|\"request_id\":\"|\"\w+_at\":\")[\w, :.-]+"
)
"""What differs between two answers to the same request (the length with the number of digits of the request id)."""


class Asked:
    """What the hot path was asked and what it took, while the server runs."""

    def __init__(self) -> None:
        self.taken: list[bool] = []


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    found, real = Asked(), Hot.request

    def noted(self: Hot, *arguments: Any) -> Any:
        request = real(self, *arguments)
        found.taken.append(request is not None)
        return request

    monkeypatch.setattr(Hot, "request", noted)
    return found


@pytest.fixture
def server(world: World, io_loop: AsyncIOLoop, socket_path: str) -> Iterator[ApiServer]:
    async def made() -> ApiServer:
        return ApiServer(world.app(), socket_path)

    found: ApiServer = io_loop.run_sync(made)
    found.start()
    yield found
    io_loop.run_sync(lambda: found.stop(1.0), timeout=10)


def wire(method: str, path: str, body: Any = None, headers: str = "") -> bytes:
    raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    length = "" if method == "GET" else f"Content-Length: {len(raw)}\r\n"
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}{length}\r\n".encode() + raw


async def answered(path: str, *requests: bytes) -> list[bytes]:
    """The whole answers, as they came, on one connection."""
    reader, writer = await asyncio.open_unix_connection(path)
    answers = []
    for request in requests:
        writer.write(request)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
        length = int(head.lower().partition(b"content-length:")[2].split()[0])
        answers.append(head + await asyncio.wait_for(reader.readexactly(length), 20))
    writer.close()
    await writer.wait_closed()
    return answers


def status(answer: bytes) -> int:
    return int(answer.split()[1])


SAME: list[tuple[str, list[tuple[str, str, Any]]]] = [
    ("ping", [("GET", "/ping", None)]),
    ("old", [("POST", "/", GOOD), ("POST", "/", GOOD)]),
    (
        "old, wrong",
        [("POST", "/", {"id": 1}), ("POST", "/", GOOD | {"zone": "nowhere"}), ("POST", "/", b"{"), ("POST", "/", b"")],
    ),
    ("new and replayed", [("POST", "/v1/tasks", GOOD), ("POST", "/v1/tasks", GOOD)]),
    ("run", [("POST", "/v1/tasks", RUN)]),
    ("conflict", [("POST", "/v1/tasks", GOOD), ("POST", "/v1/tasks", GOOD | {"timeout": 9})]),
    ("wrong", [("POST", "/v1/tasks", b) for b in (b"", b"{", b"[]", b"{}", b'{"id":"a","id":"b"}', b"\xff")]),
    ("wrong members", [("POST", "/v1/tasks", GOOD | m) for m in ({"zone": "x"}, {"action": "x"}, {"more": 1}, {"id": ""})]),
    ("batch", [("POST", "/v1/tasks:batch", {"tasks": [GOOD, RUN]}), ("POST", "/v1/tasks:batch", {"tasks": [GOOD, RUN]})]),
    ("batch, partly new", [("POST", "/v1/tasks", GOOD), ("POST", "/v1/tasks:batch", {"tasks": [GOOD, RUN]})]),
    ("batch, empty", [("POST", "/v1/tasks:batch", {"tasks": []})]),
    ("batch, wrong", [("POST", "/v1/tasks:batch", {"tasks": [GOOD, {}]}), ("POST", "/v1/tasks:batch", {"x": 1})]),
    ("batch, refused", [("POST", "/v1/tasks:batch", {"tasks": [GOOD | {"zone": "x"}]})]),
    ("beyond the quota", [("POST", "/v1/tasks:batch", {"tasks": [GOOD | {"id": str(n)} for n in range(21)]})]),
]


@pytest.mark.parametrize("headers", ["", "Idempotency-Key: k\r\n"], ids=["", "key"])
@pytest.mark.parametrize("requests", [requests for _, requests in SAME], ids=[name for name, _ in SAME])
async def test_both_ways_give_the_same_answers_to_the_byte(
    world: World, server: ApiServer, socket_path: str, asked: Asked, requests: list[tuple[str, str, Any]], headers: str
) -> None:
    """What Tornado is to answer has one more header, and other names, because the tasks of before are still there."""
    await world.engine.pause("play", True)
    found = []
    for more, d, quick, k in (("", b"d-1", b"quick-1", b": k"), ("X-Look: at this\r\n", b"d-2", b"quick-2", b": q")):
        wired = [wire(*request, headers + more) for request in requests]
        asked.taken.clear()
        answers = await answered(
            socket_path, *(each.replace(b"d-1", d).replace(b"quick-1", quick).replace(b": k", k) for each in wired)
        )
        assert asked.taken == [not more] * len(requests)
        found.append(
            [CHANGING.sub(rb"\1", each.replace(d, b"d-1").replace(quick, b"quick-1").replace(b"'q#", b"'k#")) for each in answers]
        )

    assert found[0] == found[1]


SPECIAL = [
    wire("POST", "/v1/tasks", GOOD, headers)
    for headers in (
        "Prefer: wait=1\r\n",
        "Connection: close\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Expect: 100-continue\r\n",
        "Accept: text/html\r\n",
        "Content-Type: text/plain\r\n",
        "Host: twice\r\n",
        "Content-Length: 1\r\n",
        "Idempotency-Key: \r\n",
        "Idempotency-Key: one\r\nIdempotency-Key: two\r\n",
        "Idempotency-Key: one\r\nidempotency-key: one\r\n",
        "Idempotency-Key:  two spaces\r\n",
        "Idempotency-Key: a space \r\n",
        "Idempotency-Key: a\rb\r\n",
        "Idempotency-Key: a\nHost: b\r\n",
        f"Idempotency-Key: {'k' * 129}\r\n",
        "Idempotency-Key: \xe4\r\n",
        "User-Agent: a\x0bb\r\n",
        "User-Agent: a\r\n b\r\n",
        "User-Agent : a\r\n",
        "User-Agent: a\nb: c\r\n",
        f"User-Agent: {'a' * 1024}\r\n",
    )
] + [
    wire("POST", "/v1/tasks?validate_only=true", GOOD),
    wire("POST", "/v1/tasks", GOOD).replace(b"HTTP/1.1", b"HTTP/1.0"),
    wire("POST", "/v1/tasks", GOOD).replace(b"Host: localhost\r\n", b""),
    wire("POST", "/v1/tasks", GOOD).replace(b"POST ", b"POST  "),
    wire("POST", "/v1/tasks", GOOD).replace(b"\r\n", b"\n"),
    wire("POST", "/v1/tasks", GOOD).replace(b"Content-Length: ", b"Content-Length: +"),
    wire("POST", "/v1/tasks", GOOD).replace(b"Content-Length", b"Content-Size"),
    wire("POST", "/v1/tasks", b" " * 65_537),
    wire("GET", "/ping").replace(b"\r\n\r\n", b"\r\nContent-Length: 0\r\n\r\n"),
    wire("PUT", "/v1/tasks", GOOD),
    wire("GET", "/v1/tasks"),
    wire("GET", "/v1/tasks/0"),
    b"\r\n" + wire("GET", "/ping"),
]


@pytest.mark.parametrize("request_bytes", SPECIAL, ids=range(len(SPECIAL)))
async def test_what_is_special_in_any_way_is_left_to_tornado(world: World, request_bytes: bytes) -> None:
    hot: Hot = world.app().settings["hot"]
    head = re.match(rb"(?s)(\r\n)?.*?\r?\n\r?\n", request_bytes)
    assert head is not None

    assert hot.request(head[0], world.api.access.judge(world.peer)) is None


@pytest.mark.parametrize("phase", ["starting", "draining", "degraded"])
async def test_only_a_ready_daemon_answers_the_hot_way(world: World, phase: Any) -> None:
    hot: Hot = world.app().settings["hot"]
    head = wire("POST", "/v1/tasks", GOOD).partition(b"{")[0]
    caller = world.api.access.judge(world.peer)

    assert hot.request(head, caller) is not None
    world.phase = Phase(phase)
    assert hot.request(head, caller) is None


async def test_f14_who_may_not_register_is_refused_as_before(world: World, server: ApiServer, socket_path: str) -> None:
    world.peer = STRANGER
    refused, pong = await answered(socket_path, wire("POST", "/v1/tasks", GOOD), wire("GET", "/ping"))

    assert (status(refused), status(pong)) == (403, 200)
    assert b'"forbidden"' in refused


async def test_tasks_belong_to_who_connected(world: World, server: ApiServer, socket_path: str) -> None:
    world.peer = OPERATOR
    (answer,) = await answered(socket_path, wire("POST", "/v1/tasks", GOOD))

    assert json.loads(answer.partition(b"\r\n\r\n")[2])["owner"]["uid"] == OPERATOR.uid


async def test_hot_and_other_requests_alternate_on_one_connection(server: ApiServer, socket_path: str, asked: Asked) -> None:
    answers = await answered(
        socket_path,
        wire("GET", "/ping"),
        wire("GET", "/v1/tasks"),
        wire("POST", "/v1/tasks", GOOD),
        wire("POST", "/v1/tasks", GOOD, "Prefer: wait=0\r\n"),
        wire("GET", "/ping"),
    )

    assert [status(answer) for answer in answers] == [200, 200, 202, 200, 200]
    assert asked.taken == [True, False, True, False, True]


async def test_requests_sent_at_once_are_answered_in_order(server: ApiServer, socket_path: str) -> None:
    reader, writer = await asyncio.open_unix_connection(socket_path)
    bodies = [GOOD | {"id": f"d-{n}"} for n in range(5)]
    writer.write(b"".join(wire("POST", "/v1/tasks", body) + wire("GET", "/v1/zones") for body in bodies))
    names = []
    for _ in range(10):
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
        body = json.loads(await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split()[0])))
        names.append(body.get("id", "zones"))
    writer.close()

    assert names == ["d-0", "zones", "d-1", "zones", "d-2", "zones", "d-3", "zones", "d-4", "zones"]


async def test_a_body_that_comes_in_pieces_is_read_to_its_end(server: ApiServer, socket_path: str) -> None:
    reader, writer = await asyncio.open_unix_connection(socket_path)
    for byte in wire("POST", "/v1/tasks", GOOD):
        writer.write(bytes([byte]))
        await asyncio.sleep(0)
    assert b" 202 " in await asyncio.wait_for(reader.readline(), 20)
    writer.close()


async def test_i10_an_unknown_outcome_is_told_and_not_tried_again(world: World, server: ApiServer, socket_path: str) -> None:
    tries = []

    async def failing(new: Any, meanwhile: Any = None) -> Any:
        tries.append(new)
        raise OutcomeUnknown("cannot tell whether this was stored: Input/output error", retry_after=5.0)

    world.engine.add = failing  # type: ignore[method-assign]
    (answer,) = await answered(socket_path, wire("POST", "/v1/tasks", GOOD))

    assert (status(answer), len(tries)) == (503, 1)
    assert b"outcome-unknown" in answer
    assert b"Retry-After: 5" in answer


async def test_an_answer_that_nobody_asked_to_get_ready_is_made_after_the_commit(
    world: World, server: ApiServer, socket_path: str
) -> None:
    add = world.engine.add

    async def bare(new: Any, meanwhile: Any = None) -> Any:
        return await add(new)

    world.engine.add = bare  # type: ignore[method-assign]
    batch = {"tasks": [GOOD | {"id": name} for name in ("a", "b")]}
    one, both = await answered(socket_path, wire("POST", "/v1/tasks", GOOD), wire("POST", "/v1/tasks:batch", batch))

    shown = json.loads(one.partition(b"\r\n\r\n")[2])
    assert (status(one), shown["id"], shown["state"]) == (202, GOOD["id"], "queued")
    assert f"Location: /v1/tasks/{shown['uid']}\r\n".encode() in one
    assert [task["id"] for task in json.loads(both.partition(b"\r\n\r\n")[2])["tasks"]] == ["a", "b"]


@pytest.mark.parametrize("path", ["/", "/v1/tasks"])
async def test_an_answer_is_sent_once_whether_as_soon_as_it_can_be_or_afterwards(
    path: str, world: World, server: ApiServer, socket_path: str
) -> None:
    add, early = world.engine.add, True

    async def noted(new: Any, meanwhile: Any = None) -> Any:
        def after() -> Any:
            tell = meanwhile()
            return tell if early else None

        return await add(new, after)

    world.engine.add = noted  # type: ignore[method-assign]
    first = await answered(socket_path, *(wire("POST", path, GOOD | {"id": f"d-{n}"}) for n in range(3)), wire("GET", "/ping"))
    early = False
    second = await answered(socket_path, *(wire("POST", path, GOOD | {"id": f"e-{n}"}) for n in range(3)), wire("GET", "/ping"))

    assert [status(answer) for answer in first] == [200 if path == "/" else 202] * 3 + [200]
    assert [CHANGING.sub(b"", answer).replace(b"d-", b"e-") for answer in first] == [CHANGING.sub(b"", one) for one in second]
    assert server._api.answered[status(first[0])] == (8 if path == "/" else 6)


async def test_what_goes_wrong_after_the_answer_is_logged_and_not_answered_again(
    world: World, server: ApiServer, socket_path: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def failing(new: Any, meanwhile: Any = None) -> Any:
        meanwhile()()
        raise RuntimeError("too late")

    world.engine.add = failing  # type: ignore[method-assign]
    answer, after = await answered(socket_path, wire("POST", "/v1/tasks", GOOD), wire("GET", "/ping"))

    assert (status(answer), status(after)) == (202, 200)
    assert "too late" in caplog.text


async def test_an_unexpected_error_is_a_500_that_the_log_explains(
    world: World, server: ApiServer, socket_path: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def failing(new: Any, meanwhile: Any = None) -> Any:
        raise RuntimeError("secret detail")

    world.engine.add = failing  # type: ignore[method-assign]
    answer, after = await answered(socket_path, wire("POST", "/v1/tasks", GOOD), wire("GET", "/ping"))

    assert (status(answer), status(after)) == (500, 200)
    assert b"secret detail" not in answer
    assert "secret detail" in caplog.text


async def test_a_client_that_hangs_up_while_its_task_is_stored_harms_nobody(
    world: World, server: ApiServer, socket_path: str
) -> None:
    gate, add = asyncio.Event(), world.engine.add

    async def slow(new: Any, meanwhile: Any = None) -> Any:
        await gate.wait()
        return await add(new, meanwhile)

    world.engine.add = slow  # type: ignore[method-assign]
    _, writer = await asyncio.open_unix_connection(socket_path)
    writer.write(wire("POST", "/v1/tasks", GOOD))
    await turns_until(lambda: server._api.in_flight)
    writer.close()
    gate.set()
    await turns_until(lambda: not server._http.users)

    assert (server._api.in_flight, world.engine.live()) == (0, 1)


async def test_a_client_that_goes_without_reading_its_answer_harms_nobody(
    server: ApiServer, socket_path: str, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket(socket.AF_UNIX) as rude:
        rude.connect(socket_path)
        rude.sendall(wire("GET", "/ping"))
        await turns_until(lambda: server._api.answered[200])
    await turns_until(lambda: server.connections == 0)

    (answer,) = await answered(socket_path, wire("GET", "/ping"))
    assert status(answer) == 200
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_head_that_is_sent_again_is_not_read_again() -> None:
    head = wire("POST", "/v1/tasks", GOOD, "User-Agent: again\r\n").partition(b"{")[0]
    _read_head.cache_clear()
    assert read_head(head) is read_head(bytes(bytearray(head)))
    assert _read_head.cache_info().hits == 1


@given(st.lists(st.sampled_from([b"\r", b"\n", b"a"]), max_size=12))
def test_a_header_block_ends_where_tornado_has_its_end(pieces: list[bytes]) -> None:
    found = [re.search(regex, b"".join(pieces)) for regex in (END_OF_HEAD, rb"\r?\n\r?\n")]

    assert len({each and each.end() for each in found}) == 1


def test_a_head_with_another_key_is_not_read_again() -> None:
    heads = [wire("POST", "/v1/tasks", GOOD, f"Idempotency-Key: {key}\r\nUser-Agent: a\r\n").partition(b"{")[0] for key in "ab"]
    _read_head.cache_clear()
    found = [read_head(head) for head in heads]

    assert [request and (request.key, request.route, request.length) for request in found] == [
        (key, "POST /v1/tasks", len(json.dumps(GOOD))) for key in "ab"
    ]
    assert _read_head.cache_info().hits == 1


async def test_each_registration_has_its_line_in_the_log(
    server: ApiServer, socket_path: str, caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest
) -> None:
    caplog.set_level(logging.INFO, "task_daemon.api")
    (answer,) = await answered(socket_path, wire("POST", "/v1/tasks", GOOD))
    number = re.search(rb"X-Request-Id: (\S+)", answer)
    assert number is not None

    (line,) = [record.getMessage() for record in caplog.records]
    assert re.fullmatch(
        rf"POST /v1/tasks 202 in [\d.]+ ms, user 0, pid 1, request {number[1].decode()}, task [0-9a-f-]{{36}}", line
    )


async def test_i5_a_crowd_of_requests_sent_at_once_does_not_keep_the_loop(server: ApiServer, socket_path: str) -> None:
    reader, writer = await asyncio.open_unix_connection(socket_path)
    turns = 0
    writer.write(wire("GET", "/ping") * 300)
    answers = b""
    while answers.count(b'"pong"') < 300:
        reading = asyncio.ensure_future(reader.read(65_536))
        while not reading.done():
            turns += 1
            await asyncio.sleep(0)
        answers += reading.result()
    writer.close()

    assert turns > 250
