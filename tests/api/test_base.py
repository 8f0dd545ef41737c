"""What every route has in common: refusals, limits, phases, the log, and that the loop stays free."""

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from task_daemon.api import bodies
from task_daemon.api.base import BATCH_LIMIT, BODY_LIMIT, HARD_STOP, Handler
from task_daemon.api.context import Phase
from tests.api.conftest import OPERATOR, STRANGER, VERSION, Caller, World, turns_until

GOOD = {"id": "d-1", "action": "backup", "zone": "play"}
CLOSE = b"Host: u\r\nConnection: close\r\n"


def is_problem(answer: Any, status: int, code: str) -> dict[str, Any]:
    assert (answer.status, answer.json["code"]) == (status, code)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["X-Request-Id"] == answer.json["request_id"]
    assert answer.headers["Task-Daemon-Version"] == VERSION
    assert answer.json["type"] == f"urn:task-daemon:problem:{code}"
    problem: dict[str, Any] = answer.json
    return problem


async def test_an_unknown_path_is_not_found(ask: Caller) -> None:
    for method in ("GET", "POST", "DELETE", "PUT"):
        problem = is_problem(await ask(method, "/v2/nothing"), 404, "not-found")
        assert "no such path" in problem["detail"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("PUT", "/v1/tasks", "GET, POST"), ("GET", "/", "POST"), ("POST", "/ping", "GET"), ("BREW", "/v1/tasks/x", "GET, DELETE")],
)
async def test_a_wrong_method_is_refused_with_those_allowed(ask: Caller, method: str, path: str, allowed: str) -> None:
    answer = await ask(method, path)

    is_problem(answer, 405, "method-not-allowed")
    assert answer.headers["Allow"] == allowed


@pytest.mark.parametrize("accept", ["text/html", "text/event-stream", "application/json;q=0", "image/*, text/*;q=0.5"])
async def test_f9_an_answer_that_cannot_be_given_is_not_acceptable(ask: Caller, accept: str) -> None:
    is_problem(await ask.get("/v1/tasks", Accept=accept), 406, "not-acceptable")


@pytest.mark.parametrize("accept", ["*/*", "application/json", "text/html, application/*;q=0.1", "application/problem+json"])
async def test_json_is_answered_when_it_is_accepted(ask: Caller, accept: str) -> None:
    assert (await ask.get("/v1/tasks", Accept=accept)).status == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "multipart/form-data; boundary=x"])
async def test_a_body_of_another_type_is_refused(ask: Caller, kind: str) -> None:
    is_problem(await ask.post("/v1/tasks", GOOD, Content_Type=kind), 415, "unsupported-media-type")


@pytest.mark.parametrize(
    "kind",
    ["application/json", "application/json; charset=utf-8", "application/cloudevents+json", "application/x-www-form-urlencoded"],
)
async def test_a_body_is_read_when_it_calls_itself_json_or_comes_from_curl(ask: Caller, kind: str) -> None:
    assert (await ask.post("/v1/tasks", GOOD, Content_Type=kind)).status == 202


async def test_a_body_without_a_type_is_read_as_json(connect: Callable[[], Any]) -> None:
    body = json.dumps(GOOD).encode()
    answer = await raw(connect, b"POST /v1/tasks HTTP/1.1\r\n" + CLOSE + b"Content-Length: %d\r\n\r\n" % len(body) + body)

    assert answer.startswith(b"HTTP/1.1 202")


@pytest.mark.parametrize(("path", "limit"), [("/", BODY_LIMIT), ("/v1/tasks", BODY_LIMIT), ("/v1/tasks:batch", BATCH_LIMIT)])
async def test_f14_a_body_one_byte_too_long_is_refused(ask: Caller, path: str, limit: int) -> None:
    problem = is_problem(await ask.post(path, b" " * (limit + 1)), 413, "too-large")
    assert str(limit) in problem["detail"]
    is_problem(await ask.post(path, b" " * limit), 400, "invalid-body")


async def test_f14_a_body_that_is_too_long_is_not_kept(ask: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[int] = []
    real = Handler.data_received

    def watched(self: Handler, chunk: bytes) -> None:
        real(self, chunk)
        kept.append(sum(len(piece) for piece in self._pieces))

    monkeypatch.setattr(Handler, "data_received", watched)
    await ask.post("/v1/tasks", b" " * BATCH_LIMIT)

    assert max(kept) <= BODY_LIMIT
    assert kept[-1] == 0


async def test_f14_a_body_far_too_long_is_refused_before_it_is_sent(connect: Callable[[], Any]) -> None:
    head = b"POST /v1/tasks HTTP/1.1\r\n" + CLOSE + b"Content-Length: %d\r\n\r\n" % (HARD_STOP + 1)

    assert b" 413 " in (await raw(connect, head)).split(b"\r\n")[0]


async def test_f14_a_body_without_a_length_is_counted(connect: Callable[[], Any]) -> None:
    chunk = b"%x\r\n%s\r\n" % (BODY_LIMIT // 2 + 1, b" " * (BODY_LIMIT // 2 + 1))
    head = b"POST /v1/tasks HTTP/1.1\r\n" + CLOSE + b"Transfer-Encoding: chunked\r\n\r\n"
    answer = await raw(connect, head + chunk * 2 + b"0\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 413")
    assert b'"too-large"' in answer


@pytest.mark.parametrize("path", ["/v1/tasks?colour=red", "/v1/zones?x=1", "/healthz?x=1", "/v1/events?state=queued"])
async def test_an_unknown_query_parameter_is_refused_by_name(ask: Caller, path: str) -> None:
    problem = is_problem(await ask.get(path), 400, "invalid-body")

    assert problem["errors"][0]["pointer"] == "?" + path.partition("?")[2].partition("=")[0]


async def test_a_path_that_is_no_text_is_refused(ask: Caller) -> None:
    is_problem(await ask.get("/v1/tasks/%ff"), 400, "invalid-body")


async def test_an_unexpected_error_is_internal_and_its_details_stay_in_the_log(
    ask: Caller, world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise RuntimeError("the secret cause")

    monkeypatch.setattr(world.manager, "actions", broken)
    answer = await ask.get("/v1/actions")

    problem = is_problem(answer, 500, "internal")
    assert b"secret cause" not in answer.body
    assert problem["request_id"] in caplog.text
    assert "the secret cause" in caplog.text


async def test_every_answer_has_version_and_request_id(ask: Caller) -> None:
    answers = [await ask.get("/ping"), await ask.get("/v1/zones"), await ask.get("/healthz")]

    assert {answer.headers["Task-Daemon-Version"] for answer in answers} == {VERSION}
    assert len({answer.headers["X-Request-Id"] for answer in answers}) == 3


PHASES = {"starting": "1", "draining": "2", "degraded": "10"}


@pytest.mark.parametrize("phase", PHASES)
async def test_nothing_can_be_changed_when_the_daemon_is_not_ready(ask: Caller, world: World, phase: Any) -> None:
    world.phase = Phase(phase, "a good reason")
    for method, path in (("POST", "/v1/tasks"), ("POST", "/"), ("DELETE", "/v1/tasks/x"), ("POST", "/v1/zones/play/pause")):
        answer = await ask(method, path, GOOD if method == "POST" else None)
        problem = is_problem(answer, 503, phase)
        assert "a good reason" in problem["detail"]
        assert problem["retryable"] is True
        assert answer.headers["Retry-After"] == PHASES[phase]


@pytest.mark.parametrize(("phase", "status"), [("starting", 503), ("draining", 200), ("degraded", 200)])
async def test_reading_goes_on_where_there_is_something_to_read(ask: Caller, world: World, phase: Any, status: int) -> None:
    world.phase = Phase(phase)

    assert (await ask.get("/v1/tasks")).status == status
    assert (await ask.get("/ping")).status == 200


async def test_f14_a_stranger_is_refused_everything_but_signs_of_life(ask: Caller, world: World) -> None:
    for method, path in (("GET", "/v1/tasks"), ("POST", "/v1/tasks"), ("POST", "/"), ("GET", "/v1/info"), ("GET", "/v1/events")):
        problem = is_problem(await ask(method, path, by=STRANGER), 403, "forbidden")
        assert "user 1004" in problem["detail"]
    for path in ("/ping", "/healthz", "/readyz"):
        assert (await ask.get(path, by=STRANGER)).status == 200


async def test_f14_a_refusal_reaches_a_client_that_still_sends_its_body(connect: Callable[[], Any], world: World) -> None:
    """Answering before the body was read would reset the connection."""
    world.peer = STRANGER
    reader, writer = await connect()
    writer.write(b"POST /v1/tasks HTTP/1.1\r\nHost: u\r\nContent-Length: 200000\r\n\r\n")
    await writer.drain()
    await turns_until(lambda: world_in_flight(world))
    writer.write(b" " * 200_000)
    await writer.drain()
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
    writer.close()

    assert answer.startswith(b"HTTP/1.1 403")


async def test_the_owner_is_heard_of_with_every_request(ask: Caller, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[int] = []
    monkeypatch.setattr(world.manager, "heard_of", heard.append)
    await ask.get("/ping", by=OPERATOR)
    await ask.get("/v1/tasks", by=OPERATOR)
    await ask.get("/v1/tasks", by=STRANGER)

    assert heard == [OPERATOR.uid, OPERATOR.uid]


async def test_f13_changes_and_errors_have_a_line_in_the_log(ask: Caller, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "task_daemon.api"):
        await ask.post("/v1/tasks", GOOD, by=OPERATOR)
        await ask.get("/v1/tasks")
        await ask.get("/v1/tasks/none")
    lines = [record.getMessage() for record in caplog.records if record.name == "task_daemon.api"]

    assert len(lines) == 2
    assert lines[0].startswith("POST /v1/tasks 202 in ")
    assert "user 1001, pid 2, request " in lines[0]
    assert lines[1].startswith("GET /v1/tasks/none 404")
    assert "no task of that uid" in lines[1]


async def test_nothing_is_waited_for_when_the_client_hangs_up(
    ask: Caller, world: World, connect: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    uid = (await ask.register())["uid"]
    _, writer = await connect()
    writer.write(b"GET /v1/tasks/%s?wait=300 HTTP/1.1\r\nHost: u\r\n\r\n" % uid.encode())
    await turns_until(lambda: world.manager._waiters)
    writer.close()
    await turns_until(lambda: not world.manager._waiters)
    await turns_until(lambda: not world_in_flight(world))

    assert "unexpected" not in caplog.text


async def test_nothing_is_in_flight_when_a_client_hangs_up_in_its_body(world: World, connect: Callable[[], Any]) -> None:
    _, writer = await connect()
    writer.write(b"POST /v1/tasks HTTP/1.1\r\nHost: u\r\nContent-Length: 100\r\n\r\n{")
    await turns_until(lambda: world_in_flight(world))
    writer.close()
    await turns_until(lambda: not world_in_flight(world))


async def test_i5_a_slow_store_delays_nobody_else(ask: Caller, world: World) -> None:
    gate, add = asyncio.Event(), world.engine.add

    async def slow(new: Any, meanwhile: Any = None) -> Any:
        await gate.wait()
        return await add(new, meanwhile)

    world.engine.add = slow  # type: ignore[method-assign]
    registering = asyncio.ensure_future(ask.post("/v1/tasks", GOOD))
    await turns_until(lambda: world_in_flight(world))
    answers = [await ask.get("/ping") for _ in range(3)]

    assert [answer.status for answer in answers] == [200] * 3
    assert not registering.done()
    gate.set()
    assert (await registering).status == 202


async def test_i5_the_loop_turns_while_a_large_batch_is_read(ask: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    loop, threads = asyncio.get_running_loop(), []

    def reading(raw: bytes) -> list[Any]:
        turned = asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop)
        turned.result(10)  # would never come if this were the loop's own thread
        threads.append(len(raw))
        return real(raw)

    real = bodies.batch
    monkeypatch.setattr(bodies, "batch", reading)
    tasks = [GOOD | {"id": f"d-{number}", "x_filler": "a" * 4000} for number in range(20)]

    assert (await ask.post("/v1/tasks:batch", {"tasks": tasks})).status == 202
    assert threads[0] > 64 * 1024


async def test_i5_no_request_holds_the_loop_up(ask: Caller, caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 0.5
    with caplog.at_level(logging.WARNING, "asyncio"):
        await ask.post("/v1/tasks:batch", {"tasks": [GOOD | {"id": f"d-{number}"} for number in range(20)]})
        await ask.post("/v1/tasks", b'{"a":' * 40_000)
        await ask.get("/v1/tasks?page_size=500")
    loop.set_debug(False)

    assert [record for record in caplog.records if "took" in record.getMessage()] == []


def world_in_flight(world: World) -> int:
    return world.api.in_flight


async def raw(connect: Callable[[], Any], request: bytes) -> bytes:
    """Everything that is answered until the connection ends."""
    reader, writer = await connect()
    writer.write(request)
    answer: bytes = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    return answer
