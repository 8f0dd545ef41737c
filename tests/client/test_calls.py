"""What is sent again after trouble, and what is not."""

import json
from collections.abc import Callable, Mapping

import pytest

from task_client.calls import FIRST_PAUSE
from task_client.client import Client
from task_client.errors import AnswerUnknown, ClientError, DaemonUnreachable, RequestRefused
from task_client.transport import Answer
from tests.client.scripted import Reply, ScriptedServer, problem, task


def test_registration_is_sent_again_with_its_key_when_the_answer_got_lost(server: ScriptedServer, client: Client) -> None:
    server.on("POST", "/v1/tasks", Reply(drop=True), Reply(202, task()))

    assert client.register("disk-1", "backup", "vm1").uid == "u1"

    first, second = server.asked
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
    assert first.raw == second.raw


@pytest.mark.parametrize("code", ["starting", "draining", "outcome-unknown"])
def test_registration_is_sent_again_when_the_daemon_asks_for_it(
    server: ScriptedServer, client: Client, naps: list[float], code: str
) -> None:
    server.on("POST", "/v1/tasks", problem(503, code, "not now", retry_after=2), Reply(202, task()))

    assert client.register("disk-1", "backup", "vm1").uid == "u1"

    assert naps == [2.0]


def test_registration_ends_as_refused_when_the_store_is_degraded(server: ScriptedServer, client: Client) -> None:
    server.on("POST", "/v1/tasks", problem(503, "degraded", "the disk is gone", retry_after=30))

    with pytest.raises(RequestRefused) as caught:
        client.register("disk-1", "backup", "vm1")

    assert (caught.value.code, caught.value.retry_after, len(server.asked)) == ("degraded", 30.0, 1)


def test_resolving_is_not_repeated_when_the_answer_got_lost(server: ScriptedServer, client: Client) -> None:
    """The second one would be refused as `not-lost`, although the first was carried out."""
    server.on("POST", "/v1/tasks/u1/resolve", Reply(drop=True))

    with pytest.raises(AnswerUnknown):
        client.resolve("u1", "failed", "seen in the log")

    assert len(server.asked) == 1


def test_resolving_is_repeated_when_the_daemon_was_starting(server: ScriptedServer, client: Client) -> None:
    server.on("POST", "/v1/tasks/u1/resolve", problem(503, "starting", "wait", retry_after=1), Reply(200, task(state="failed")))

    assert client.resolve("u1", "failed").state == "failed"


def test_trouble_is_reported_when_the_time_is_up(server: ScriptedServer, make_client: Callable[..., Client]) -> None:
    server.on("GET", "/v1/info", problem(503, "starting", "the store is being checked", retry_after=1))

    with pytest.raises(RequestRefused, match="store is being checked"):
        make_client(timeout=0.2).info()


def test_absent_daemon_is_an_error_at_once(client: Client, naps: list[float]) -> None:
    with pytest.raises(DaemonUnreachable):
        client.info()

    assert naps == []


class Breaking:
    """A transport whose daemon dies while it works on the first request."""

    unix_socket = "/nowhere"

    def __init__(self, retryable: bool) -> None:
        self.calls = 0
        self._retryable = retryable

    def request(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | None = None, timeout: float = 30.0
    ) -> Answer:
        self.calls += 1
        if self.calls == 1:
            raise AnswerUnknown("cut off")
        raise DaemonUnreachable("nobody there", self._retryable)

    def close(self) -> None:
        pass


@pytest.mark.parametrize("retryable", [True, False])
def test_lost_answer_is_what_is_reported_when_the_daemon_is_gone_afterwards(naps: list[float], retryable: bool) -> None:
    """That the last try was not sent must not hide that the first one was."""
    transport = Breaking(retryable)
    client = Client(transport=transport, timeout=0.1, sleep=naps.append)

    with pytest.raises(AnswerUnknown, match="cut off"):
        client.register("disk-1", "backup", "vm1")

    assert transport.calls > 2 if retryable else transport.calls == 2
    assert naps[0] == FIRST_PAUSE


class Adding:
    """A transport that adds a header of its own to what it was given."""

    unix_socket = "/nowhere"

    def __init__(self) -> None:
        self.given: list[dict[str, str]] = []

    def request(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | None = None, timeout: float = 30.0
    ) -> Answer:
        self.given.append(dict(headers))
        headers["Authorization"] = "mine"  # type: ignore[index]
        return Answer(200, {}, b"{}")

    def close(self) -> None:
        pass


def test_headers_belong_to_the_transport_they_are_given_to() -> None:
    transport = Adding()
    client = Client(transport=transport)

    for ask in (lambda: client.cancel("u1"), client.info):
        for _ in range(2):
            ask()

    assert transport.given == [{"Content-Type": "application/json"}] * 2 + [{}] * 2


def test_refusal_tells_code_detail_and_members(server: ScriptedServer, client: Client) -> None:
    wrong = [{"pointer": "/zone", "message": "must be a string"}]
    server.on("POST", "/v1/tasks", problem(400, "invalid-body", "the body is wrong", errors=wrong))

    with pytest.raises(RequestRefused, match=r"the body is wrong \(invalid-body\)") as caught:
        client.register("disk-1", "backup", "vm1")

    assert (caught.value.status, caught.value.errors) == (400, [("/zone", "must be a string")])


def test_refusal_has_a_code_when_the_answer_is_no_problem_document(server: ScriptedServer, client: Client) -> None:
    server.on("GET", "/v1/info", Reply(400, b""))

    with pytest.raises(RequestRefused) as caught:
        client.info()

    assert caught.value.code == "http-400"


@pytest.mark.parametrize("body", [b"<html>", b"[1]", b"", b"{1}", b'{"uid":"u1","id"'])
def test_answer_is_refused_when_it_is_not_what_was_agreed(server: ScriptedServer, client: Client, body: bytes) -> None:
    server.on("GET", "/v1/info", Reply(200, body))
    server.on("POST", "/v1/tasks", Reply(202, body))

    for ask in (client.info, lambda: client.register("disk-1", "backup", "vm1")):
        with pytest.raises(ClientError, match="cannot read the daemon's answer"):
            ask()


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_task_is_the_one_of_the_answer_however_that_is_written(
    server: ScriptedServer, client: Client, separators: tuple[str, str]
) -> None:
    raw = task(labels={"a": "ä"}, size=7)
    server.on("POST", "/v1/tasks", Reply(202, json.dumps(raw, separators=separators).encode()))

    found = client.register("disk-1", "backup", "vm1")

    assert (found.uid, found.id, found.size, found.labels, found.raw) == ("u1", "disk-1", 7, {"a": "ä"}, raw)


def test_task_says_when_it_is_looked_at_that_its_answer_was_no_json(server: ScriptedServer, client: Client) -> None:
    server.on("POST", "/v1/tasks", Reply(202, b'{"uid":"u1",}'))

    found = client.register("disk-1", "backup", "vm1")

    assert found.uid == "u1"
    for _ in range(2):
        with pytest.raises(ClientError, match=r"cannot read the daemon's answer \(HTTP status 202\): it is not JSON"):
            _ = found.state
