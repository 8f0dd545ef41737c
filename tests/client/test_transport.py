"""What both transports must do alike."""

import os
import socket
import threading
from pathlib import Path

import pytest

from task_client.errors import AnswerUnknown, DaemonUnreachable
from task_client.transport import Transport
from tests.client.scripted import Reply, ScriptedServer


def test_one_connection_is_used_again_when_routes_differ(server: ScriptedServer, transport: Transport) -> None:
    for n in range(6):
        server.on("GET", f"/r{n}", Reply(body=n))
        assert transport.request("GET", f"/r{n}?x={n}", {}).json() == n

    assert server.connections == 1


def test_body_headers_and_status_pass_unchanged(server: ScriptedServer, transport: Transport) -> None:
    server.on("POST", "/x", Reply(202, {"a": "ä"}, {"Location": "/y", "X-Upper": "Kept"}))

    answer = transport.request("POST", "/x", {"Idempotency-Key": "k"}, '{"b": "ü"}'.encode())

    assert (answer.status, answer.json(), answer.headers["location"], answer.headers["x-upper"]) == (
        202,
        {"a": "ä"},
        "/y",
        "Kept",
    )
    assert server.asked[0].body == {"b": "ü"}
    assert server.asked[0].headers["idempotency-key"] == "k"


def test_nothing_was_sent_when_the_socket_is_absent(transport: Transport) -> None:
    with pytest.raises(DaemonUnreachable, match=r"no such socket.*taskctl start") as caught:
        transport.request("POST", "/x", {}, b"{}")

    assert caught.value.retryable
    assert not caught.value.busy


def test_nothing_was_sent_when_nobody_listens(transport: Transport, socket_path: str) -> None:
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(socket_path)

    with pytest.raises(DaemonUnreachable, match="nobody listens"):
        transport.request("GET", "/x", {})


def test_unreachable_is_busy_when_the_backlog_is_full(transport: Transport, socket_path: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(socket_path)
        listener.listen(0)
        first.connect(socket_path)

        with pytest.raises(DaemonUnreachable) as caught:
            transport.request("GET", "/x", {})

    assert caught.value.busy


def test_answer_is_unknown_when_time_is_up(server: ScriptedServer, transport: Transport) -> None:
    go = threading.Event()
    server.on("GET", "/slow", Reply(after=go, body="slow"))
    server.on("GET", "/quick", Reply(body="quick"))

    with pytest.raises(AnswerUnknown, match=r"no answer within 0\.2 s"):
        transport.request("GET", "/slow", {}, timeout=0.2)
    go.set()

    assert transport.request("GET", "/quick", {}).json() == "quick"  # never the answer of the one before


def test_time_out_of_each_call_counts_when_the_connection_is_kept(server: ScriptedServer, transport: Transport) -> None:
    go = threading.Event()
    server.on("GET", "/quick", Reply(body=1))
    server.on("GET", "/slow", Reply(after=go))
    transport.request("GET", "/quick", {}, timeout=30)

    with pytest.raises(AnswerUnknown, match=r"within 0\.2 s"):
        transport.request("GET", "/slow", {}, timeout=0.2)
    go.set()


def test_post_is_sent_once_when_the_server_closes_without_an_answer(server: ScriptedServer, transport: Transport) -> None:
    server.on("GET", "/warm", Reply())
    server.on("POST", "/x", Reply(drop=True))
    transport.request("GET", "/warm", {})

    with pytest.raises(AnswerUnknown, match="connection broke"):
        transport.request("POST", "/x", {}, b"{}")

    assert [asked.method for asked in server.asked].count("POST") == 1


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_stale_connection_is_noticed_when_the_server_was_restarted(transport: Transport, socket_path: str, method: str) -> None:
    first = ScriptedServer(socket_path)
    first.on(method, "/x", Reply(body=1))
    transport.request(method, "/x", {})
    first.stop()
    second = ScriptedServer(socket_path)
    second.on(method, "/x", Reply(body=2))
    try:
        assert transport.request(method, "/x", {}).json() == 2
    finally:
        second.stop()


def test_refusal_is_read_when_a_body_of_20_mb_is_not(server: ScriptedServer, transport: Transport) -> None:
    server.on("POST", "/x", Reply(413, {"code": "too-large"}))
    server.on("GET", "/y", Reply(body="next"))

    answer = transport.request("POST", "/x", {"Content-Type": "application/json"}, b" " * 20_000_000)

    assert (answer.status, answer.json()) == (413, {"code": "too-large"})
    assert transport.request("GET", "/y", {}).json() == "next"


def test_redirect_is_answered_and_not_followed(server: ScriptedServer, transport: Transport) -> None:
    server.on("GET", "/x", Reply(307, None, {"Location": "/y"}))

    assert transport.request("GET", "/x", {}).status == 307
    assert len(server.asked) == 1


def test_empty_answers_are_complete_when_the_status_says_so(server: ScriptedServer, transport: Transport) -> None:
    server.on("DELETE", "/x", Reply(204))
    server.on("GET", "/x", Reply(304))

    assert transport.request("DELETE", "/x", {}).json() is None
    assert transport.request("GET", "/x", {}).status == 304
    assert server.connections == 1


def test_proxies_and_passwords_of_the_environment_are_ignored(
    server: ScriptedServer, transport: Transport, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    netrc = tmp_path / "netrc"
    netrc.write_text("default login somebody password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    server.on("GET", "/x", Reply(body=1))

    assert transport.request("GET", "/x", {}).json() == 1
    assert "authorization" not in server.asked[0].headers


def test_threads_get_their_own_answers_when_they_share_a_transport(server: ScriptedServer, transport: Transport) -> None:
    wrong: list[object] = []

    def ask(n: int) -> None:
        for _ in range(10):
            found = transport.request("GET", f"/t{n}", {}).json()
            if found != n:
                wrong.append(found)
        transport.close()

    for n in range(4):
        server.on("GET", f"/t{n}", Reply(body=n))
    threads = [threading.Thread(target=ask, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert wrong == []


def test_child_opens_its_own_connection_when_the_process_forks(server: ScriptedServer, transport: Transport) -> None:
    """One connection read by two processes would hand the answers of one to the other."""
    server.on("GET", "/x", Reply(body=1))
    transport.request("GET", "/x", {})

    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if transport.request("GET", "/x", {}, timeout=5).json() == 1 else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    assert transport.request("GET", "/x", {}).json() == 1
    assert server.connections == 2
