"""Answers read by their bytes: the same as `http.client` reads them, and left to it when they are unusual."""

import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from task_client import over_socket
from task_client.errors import AnswerUnknown
from task_client.over_socket import SocketTransport, _Connection, asked_for, head_of
from task_client.unix import open_unix
from task_client.unusual import read
from tests.client.forking import FORKS, in_child
from tests.client.scripted import Reply, ScriptedServer
from tests.waiting import eventually

HEAD = b"HTTP/1.1 200 OK\r\nServer: x\r\n"
Says = Callable[..., SocketTransport]


@pytest.fixture
def saying(socket_path: str) -> Iterator[Says]:
    """A transport to a server that answers each request with these pieces, and closes after the last if asked to. Between two
    pieces it waits for the event that lies there."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(socket_path)
    listener.listen(8)
    threads: list[threading.Thread] = []
    transport = SocketTransport(socket_path)

    def serve(pieces: tuple[bytes | threading.Event, ...], closing: bool) -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    while connection.recv(65536):
                        for piece in pieces:
                            if isinstance(piece, bytes):
                                connection.sendall(piece)
                            else:
                                piece.wait(10)
                        if closing:
                            break

    def say(*pieces: bytes | threading.Event, closing: bool = False) -> SocketTransport:
        threads.append(threading.Thread(target=serve, args=(pieces, closing)))
        threads[-1].start()
        return transport

    yield say
    transport.close()
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    for thread in threads:
        thread.join(10)


def test_http_client_is_not_loaded_for_an_answer_as_the_daemon_gives_it(server: ScriptedServer) -> None:
    server.on("GET", "/x", Reply(200, 1))
    code = (
        "import sys; from task_client.over_socket import SocketTransport\n"
        "assert SocketTransport(sys.argv[1]).request('GET', '/x', {}).json() == 1\n"
        "print(sorted({'http.client', 'email.parser'} & set(sys.modules)))"
    )

    said = subprocess.run([sys.executable, "-c", code, server.path], capture_output=True, text=True, check=True, timeout=60)

    assert said.stdout == "[]\n"


@pytest.mark.parametrize(
    "pieces",
    [
        (HEAD + b"Content-Length: 5\r\n\r\nhello",),
        (HEAD + b"Content-Length: 5\r\n\r\nhe", b"llo"),
        (HEAD, b"Content-Length: 5\r\n\r\nhello"),
        (HEAD + b"content-length:5\r\n\r\nhello",),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n", b"3\r\nllo\r\n0\r\n\r\n"),
        (b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD + b"Content-Length: 5\r\n\r\nhello",),
        (b"HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello",),
        (HEAD + b"X: a\r\nX: b\r\nContent-Length: 5\r\n\r\nhello",),
        (HEAD + b"X: a\r\n b\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello",),
    ],
)
def test_answer_is_complete_and_the_connection_kept_however_it_is_written(saying: Says, pieces: tuple[bytes, ...]) -> None:
    transport = saying(*pieces)

    for _ in range(3):
        answer = transport.request("GET", "/x", {})
        assert (answer.status, answer.body) == (200, b"hello")
    assert len(transport._idle) == 1


@pytest.mark.parametrize(
    "answer",
    [
        HEAD + b"\r\nhello",
        b"HTTP/1.0 200 OK\r\n\r\nhello",
        HEAD + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello",
    ],
)
def test_connection_is_left_when_the_answer_ends_with_it(saying: Says, answer: bytes) -> None:
    transport = saying(answer, closing=True)

    assert transport.request("GET", "/x", {}).body == b"hello"
    assert len(transport._idle) == 0


def test_connection_is_left_when_more_came_than_was_asked_for(saying: Says) -> None:
    transport = saying(HEAD + b"Content-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\n")

    assert transport.request("GET", "/x", {}).body == b"hello"
    assert len(transport._idle) == 0


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        HEAD,
        HEAD + b"Content-Length: 5\r\n\r\nhel",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe",
        b"SSH-2.0-x\r\n",
    ],
)
def test_answer_is_unknown_when_it_is_cut_or_no_http(saying: Says, answer: bytes) -> None:
    transport = saying(answer, closing=True)

    with pytest.raises(AnswerUnknown, match="the connection broke: it"):
        transport.request("POST", "/x", {}, b"{}")
    assert len(transport._idle) == 0


def test_another_connection_is_used_when_all_that_were_kept_are_closed(server: ScriptedServer, socket_path: str) -> None:
    go = threading.Event()
    server.on("POST", "/x", Reply(after=go, body=1))
    transport = SocketTransport(socket_path)
    with ThreadPoolExecutor(3) as threads:
        asked = [threads.submit(transport.request, "POST", "/x", {}) for _ in range(3)]
        eventually("three are asking", lambda: server.connections == 3)
        go.set()
        assert [each.result(10).json() for each in asked] == [1, 1, 1]
    server.stop()
    again = ScriptedServer(socket_path, {("POST", "/x"): [Reply(body=2)]})

    assert len(transport._idle) == 3
    assert transport.request("POST", "/x", {}, b"{}").json() == 2

    assert (len(again.asked), again.connections, len(transport._idle)) == (1, 1, 1)
    transport.close()
    again.stop()


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set when an answer was not there soon and its time-out counts from now on."""
    event = threading.Event()
    wait_at_most = _Connection._wait_at_most

    def wait(connection: _Connection, timeout: float) -> None:
        wait_at_most(connection, timeout)
        event.set()

    monkeypatch.setattr(_Connection, "_wait_at_most", wait)
    return event


def test_answer_is_taken_when_it_was_not_there_soon(server: ScriptedServer, waited: threading.Event) -> None:
    server.on("GET", "/slow", Reply(after=waited, body="slow"))
    server.on("GET", "/quick", Reply(body="quick"))
    transport = SocketTransport(server.path)

    assert transport.request("GET", "/slow", {}).json() == "slow"
    assert waited.is_set()

    assert transport.request("GET", "/quick", {}).json() == "quick"
    assert transport._idle[0]._sock.gettimeout() is None
    assert server.connections == 1
    transport.close()


def test_answer_is_whole_when_its_end_comes_late(saying: Says, waited: threading.Event) -> None:
    transport = saying(HEAD + b"Content-Length: 5\r\n\r\nhe", waited, b"llo")

    for _ in range(2):
        assert transport.request("GET", "/x", {}).body == b"hello"
        assert waited.is_set()
        waited.clear()
    assert len(transport._idle) == 1


@pytest.mark.parametrize("timeout", [0.04, 0.3])
def test_time_out_counts_when_signals_keep_coming(server: ScriptedServer, timeout: float) -> None:
    """The kernel's own time-out of a socket begins anew with each signal."""
    go, over = threading.Event(), threading.Event()
    server.on("GET", "/slow", Reply(after=go))
    transport = SocketTransport(server.path)
    before = signal.signal(signal.SIGUSR1, lambda *_: None)

    def disturb() -> None:
        while not over.wait(0.1):
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    disturbing = threading.Thread(target=disturb)
    disturbing.start()
    try:
        with pytest.raises(AnswerUnknown, match=f"no answer within {timeout} s"):
            transport.request("GET", "/slow", {}, timeout=timeout)
    finally:
        over.set()
        disturbing.join(10)
        signal.signal(signal.SIGUSR1, before)
        go.set()


class Seeming(socket.socket):
    """Never blocks; whoever uses it waits elsewhere, for as long as its time-out says. Gevent and eventlet have such sockets."""

    _seconds: float | None = None

    def settimeout(self, value: float | None) -> None:
        self._seconds = value

    def recv(self, *arguments: int) -> bytes:
        while True:
            with suppress(BlockingIOError):
                return super().recv(*arguments)
            if not select.select([self], [], [], self._seconds)[0]:
                raise TimeoutError


def test_time_out_counts_when_a_socket_only_seems_to_block(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()
    server.on("GET", "/quick", Reply(body=1))
    server.on("GET", "/slow", Reply(after=go))
    transport = SocketTransport(server.path)

    def seeming(path: str, timeout: float | None) -> Seeming:
        made = Seeming(fileno=open_unix(path, timeout).detach())
        os.set_blocking(made.fileno(), False)
        return made

    monkeypatch.setattr(over_socket, "open_unix", seeming)
    for _ in range(2):
        assert transport.request("GET", "/quick", {}).json() == 1
    with pytest.raises(AnswerUnknown, match=r"no answer within 0\.1 s"):
        transport.request("GET", "/slow", {}, timeout=0.1)
    go.set()
    assert server.connections == 1


def test_body_of_a_megabyte_is_sent_whole(server: ScriptedServer) -> None:
    server.on("POST", "/x", Reply(body=1))
    transport = SocketTransport(server.path)

    assert transport.request("POST", "/x", {}, body := os.urandom(1 << 20)).json() == 1
    assert server.asked[0].raw == body
    assert transport.request("POST", "/x", {}, b"{}").json() == 1
    assert server.connections == 1
    transport.close()


@pytest.mark.parametrize("fork", FORKS)
def test_child_opens_its_own_connection_whoever_forked(server: ScriptedServer, fork: Callable[[], int]) -> None:
    server.on("GET", "/x", Reply(body=1))
    transport = SocketTransport(server.path)
    transport.request("GET", "/x", {})

    assert in_child(fork, lambda: transport.request("GET", "/x", {}, timeout=5).json()) == "1"

    assert transport.request("GET", "/x", {}).json() == 1
    assert server.connections == 2
    transport.close()


def test_headers_are_those_that_were_sent() -> None:
    answer = b"HTTP/1.1 202 Accepted\r\nServer: a: b\r\nRetry-After: 1\r\nContent-Length: 3\r\n\r\nabc"
    found = head_of(answer)

    assert found is not None
    status, headers, begin, length = found
    assert (status, answer[begin:], length) == (202, b"abc", 3)
    assert headers == {"server": "a: b", "retry-after": "1", "content-length": "3"}
    assert (len(headers), headers.get("location", ""), "Server" in headers, "server" in headers) == (3, "", False, True)


def test_head_has_no_body_whatever_its_length(saying: Says) -> None:
    answer = saying(HEAD + b"Content-Length: 5\r\n\r\n").request("HEAD", "/x", {})

    assert (answer.body, answer.headers["content-length"]) == (b"", "5")


def test_request_is_one_piece_of_known_length() -> None:
    asked = asked_for("POST", "/x?a=b", {"Accept": "application/json"}, b"{}")

    assert asked == b"POST /x?a=b HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\nContent-Length: 2\r\n\r\n{}"
    assert asked_for("POST", "/", {}, None).endswith(b"Content-Length: 0\r\n\r\n")
    assert b"Length" not in asked_for("GET", "/", {}, None)
    assert asked_for("GET", "/", {"host": "me"}, None) == b"GET / HTTP/1.1\r\nhost: me\r\n\r\n"


@pytest.mark.parametrize(
    ("method", "target", "headers"),
    [
        ("GET", "/x\r\nX: y", {}),
        ("GET", "/a b", {}),
        ("GET", "/ä", {}),
        ("GET", "", {}),
        ("GE T", "/", {}),
        ("GET", "/", {"X": "a\r\nY: b"}),
        ("GET", "/", {"X": "a\n"}),
        ("GET", "/", {"X: y\r\nZ": "a"}),
        ("GET", "/", {"X": "€"}),
    ],
)
def test_request_is_refused_when_it_would_be_another(method: str, target: str, headers: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"cannot send .* accepted"):
        asked_for(method, target, headers, None)


first = st.sampled_from([b"HTTP/1.1 200 OK", b"HTTP/1.1 404 Not Found", b"HTTP/1.1 304 x", b"HTTP/1.1 200", b"HTTP/1.0 200 OK"])
plain = st.sampled_from([b"Date: x", b"Server: a b", b"Location: /v1/tasks/u:1", b"Retry-After: 1", b'Etag: "7"', b"Server: ~"])
good = st.sampled_from([b"Date: x", b"X: a\tb", b"y:", b"z: \xe4", b"w:  x y", b"v: ::", b"u: \xa0", b"t: \x85"])
odd = st.sampled_from(
    [b"date: again", b"X : y", b"abc", b" folded", b"\xe4: b", b"s: a ", b"Connection: close", b"a\rb: c", b"r: a\rb", b"q: \x00",
     b"p: a\nb: c", b"", b"Server: a ", b"Server:  a", b"Server: "]
)  # fmt: skip
line = plain | plain | plain | good | good | good | odd
length = st.sampled_from([b"Content-Length: 3", b"content-length:0", b"Content-Length: 3 ", b"Content-Length: +3", b"X: 3"])
head = st.builds(
    lambda first, lines, end: end.join([first, *lines, b"", b"abcdef"]),
    first,
    st.tuples(st.lists(line, max_size=2), length, st.lists(line, max_size=2)).map(lambda found: [*found[0], found[1], *found[2]]),
    st.sampled_from([b"\r\n", b"\r\n", b"\n"]),
)


@settings(max_examples=300)
@given(head)
@example(HEAD + b"Content-Length: 3\r\nDate: x\r\n\r\nabc")
@example(HEAD + b"Date:  x\r\nContent-Length: 3\r\n\r\nabc")
def test_what_is_read_here_http_client_reads_alike(answer: bytes) -> None:
    found_here = head_of(answer)
    if found_here is None:
        return
    status, headers, begin, length = found_here
    if len(answer) < begin + length:
        return
    ours, ended = socket.socketpair()
    ended.close()
    with ours:
        found, reusable = read(answer, ours, "GET")

    assert (found.status, dict(found.headers), found.body) == (status, headers, answer[begin : begin + length])
    assert reusable
