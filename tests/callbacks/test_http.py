"""The HTTP client against receivers on real sockets that behave well, badly and not at all."""

import asyncio
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from task_daemon.callbacks.http import IDLE_PER_TARGET, HttpClient
from task_daemon.callbacks.message import ANSWER_LIMIT, encoded
from task_daemon.callbacks.target import AllowList, parse_target
from task_daemon.core.ports import Answer as Answered
from task_daemon.core.ports import Unsendable
from tests.conftest import missing
from tests.receivers import Answer, Receiver

NOW = 1_800_000_000.0


@asynccontextmanager
async def client(**options: Any) -> AsyncIterator[Callable[..., Any]]:
    """A function that posts to a URL; the client behind it is closed at the end."""
    http = HttpClient(**options)

    async def post(url: str, body: bytes = b"{}", **more: Any) -> Answered:
        target = parse_target(url)
        request = encoded("POST", target.path, {"Host": target.authority, "X-Test": "1"}, body)
        return await http.request(target, "POST", request, now=NOW, **more)

    try:
        yield post
    finally:
        await http.close()


async def test_request_arrives_whole_and_answer_comes_back() -> None:
    body = b"x" * 300_000
    with Receiver([Answer(201, body="grüß".encode(), headers={"Retry-After": "7"})]) as receiver:
        async with client() as post:
            answer = await post(receiver.url + "?q=1", body)

    (request,) = receiver.requests
    assert (request.method, request.path, request.body) == ("POST", "/hook?q=1", body)
    assert request.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert request.headers["x-test"] == "1"
    assert (answer.status, answer.body, answer.retry_after) == (201, "grüß", 7.0)
    assert answer.seconds > 0


async def test_connection_is_used_again_when_the_receiver_keeps_it() -> None:
    with Receiver() as receiver:
        async with client() as post:
            for _ in range(5):
                await post(receiver.url)

        assert [request.connection for request in receiver.requests] == [1] * 5


async def test_unix_socket_is_reached_and_kept_when_url_is_http_unix(socket_path: str) -> None:
    uids: list[int] = []
    with Receiver(path=socket_path) as receiver:
        async with client() as post:
            for _ in range(2):
                await post(receiver.url, peer_check=uids.append)

        assert [request.path for request in receiver.requests] == ["/hook", "/hook"]
        assert receiver.connections == 1
        assert uids == [Path(socket_path).stat().st_uid] * 2


async def test_nothing_is_sent_when_the_peer_is_refused(socket_path: str) -> None:
    def refuse(uid: int) -> None:
        raise Unsendable("no")

    with Receiver(path=socket_path) as receiver:
        async with client() as post:
            with pytest.raises(Unsendable):
                await post(receiver.url, peer_check=refuse)
        await asyncio.to_thread(receiver.wait_closed, 1)

        assert receiver.requests == []


async def test_request_goes_out_once_more_when_the_kept_connection_was_closed() -> None:
    with Receiver([200, Answer(drop=True), 202]) as receiver:
        async with client() as post:
            await post(receiver.url)
            answer = await post(receiver.url)

        assert answer.status == 202
        assert [request.connection for request in receiver.requests] == [1, 1, 2]


async def test_error_is_told_when_a_fresh_connection_is_closed_without_an_answer() -> None:
    with Receiver(then=Answer(drop=True)) as receiver:
        async with client() as post:
            with pytest.raises(ConnectionError, match="closed the connection"):
                await post(receiver.url)

        assert len(receiver.requests) == 1


async def test_fresh_connection_is_made_when_the_receiver_hung_up_while_idle() -> None:
    with Receiver() as receiver:
        async with client() as post:
            await post(receiver.url)
            receiver.hang_up()
            await asyncio.to_thread(receiver.wait_closed, 1)
            await post(receiver.url)

        assert [request.connection for request in receiver.requests] == [1, 2]


async def test_bytes_nobody_asked_for_never_become_an_answer() -> None:
    forged = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    with Receiver([Answer(raw=forged + forged), 503]) as receiver:
        async with client() as post:
            assert (await post(receiver.url)).status == 200
            assert (await post(receiver.url)).status == 503


async def test_connection_is_not_used_again_when_it_speaks_without_being_asked() -> None:
    with Receiver(then=503) as receiver:
        async with client() as post:
            await post(receiver.url)
            receiver.say(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            await asyncio.to_thread(receiver.wait_closed, 1)
            assert (await post(receiver.url)).status == 503

        assert [request.connection for request in receiver.requests] == [1, 2]


async def test_idle_connection_is_closed_when_its_time_is_over() -> None:
    with Receiver() as receiver:
        async with client(idle_seconds=0.01) as post:
            await post(receiver.url)
            await asyncio.to_thread(receiver.wait_closed, 1)
            await post(receiver.url)

        assert receiver.connections == 2


async def test_no_more_than_four_connections_are_kept_when_more_were_used() -> None:
    gate = threading.Event()
    with Receiver(then=Answer(after=gate)) as receiver:
        async with client() as post:
            busy = [asyncio.create_task(post(receiver.url)) for _ in range(6)]
            await asyncio.to_thread(receiver.wait, 6)
            gate.set()
            await asyncio.gather(*busy)
            await asyncio.to_thread(receiver.wait_closed, 2)

            assert receiver.connections - receiver.closed_connections == IDLE_PER_TARGET


async def test_connection_is_not_used_again_when_the_answer_says_close() -> None:
    with Receiver([Answer(close=True), 200]) as receiver:
        async with client() as post:
            await post(receiver.url)
            await post(receiver.url)

        assert [request.connection for request in receiver.requests] == [1, 2]


@pytest.mark.parametrize(
    ("raw", "body"),
    [
        (b"HTTP/1.0 200 OK\r\n\r\nold", "old"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "abc"),
        (b"HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", ""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n\xff\xfe", "\ufffd\ufffd"),
    ],
)
async def test_answer_is_understood_when_it_is_unusual(raw: bytes, body: str) -> None:
    with Receiver([Answer(raw=raw, close=True)]) as receiver:
        async with client() as post:
            answer = await post(receiver.url)

    assert 200 <= answer.status < 300
    assert answer.body == body


async def test_only_the_beginning_is_read_when_the_answer_is_huge() -> None:
    with Receiver([Answer(body=b"y" * 3_000_000), 200]) as receiver:
        async with client() as post:
            answer = await post(receiver.url)
            await post(receiver.url)

        assert answer.body == "y" * ANSWER_LIMIT
        assert [request.connection for request in receiver.requests] == [1, 2]


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"nonsense\r\n\r\n", "not HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"h" * 40_000, "not HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", "not HTTP/1.1|half-way"),
        (b"HTTP/1.1 200 OK\r\nConte", "not HTTP/1.1|half-way"),
    ],
)
async def test_error_is_told_when_the_answer_is_not_a_whole_http_answer(raw: bytes, said: str) -> None:
    with Receiver([Answer(raw=raw, close=True)]) as receiver:
        async with client() as post:
            with pytest.raises(ConnectionError, match=said):
                await post(receiver.url)


async def test_redirect_is_an_ordinary_answer() -> None:
    with Receiver(path=None) as other, Receiver([Answer(307, headers={"Location": other.url})]) as receiver:
        async with client() as post:
            assert (await post(receiver.url)).status == 307

        assert other.requests == []


async def test_request_ends_with_its_time_when_no_answer_comes() -> None:
    with Receiver(then=Answer(never=True)) as receiver:
        async with client(timeout=0.05) as post:
            with pytest.raises(TimeoutError, match=r"cannot get an answer from http://127.0.0.1:\d+: none within 0.05 s"):
                await post(receiver.url)
        await asyncio.to_thread(receiver.wait_closed, 1)


async def test_requests_on_kept_connections_end_with_their_times_when_no_answer_comes() -> None:
    with Receiver([200, 200, Answer(never=True), Answer(never=True), 200]) as receiver:
        async with client(timeout=0.1) as post:
            await asyncio.gather(post(receiver.url), post(receiver.url))
            outcomes = await asyncio.gather(post(receiver.url), post(receiver.url), return_exceptions=True)
            assert [str(outcome).partition(": ")[2] for outcome in outcomes] == ["none within 0.1 s"] * 2
            assert (await post(receiver.url)).status == 200
            await asyncio.to_thread(receiver.wait_closed, 2)

        assert sorted(request.connection for request in receiver.requests) == [1, 1, 2, 2, 3]


async def test_connecting_ends_with_its_time_when_nobody_accepts() -> None:
    """The kernel completes the TCP handshake by itself; the one of TLS belongs to connecting and never begins."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with client(connect_timeout=0.05) as post:
            with pytest.raises(TimeoutError, match=r"cannot connect to https.*: no connection within 0\.05 s"):
                await post(f"https://127.0.0.1:{listener.getsockname()[1]}/")


async def test_sending_can_be_tried_again_when_the_queue_of_a_unix_socket_is_full(socket_path: str) -> None:
    """Such a socket looks connected to asyncio, but has no peer: that is no evidence about who listens."""
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as waiting:
        listener.bind(socket_path)
        listener.listen(0)
        waiting.connect(socket_path)
        uids: list[int] = []
        async with client() as post:
            with pytest.raises(ConnectionError, match="its queue of connections is full"):
                await post("http+unix://" + socket_path.replace("/", "%2F"), peer_check=uids.append)

        assert uids == []


async def test_error_names_the_target_when_nobody_listens(socket_path: str) -> None:
    with Receiver() as receiver:
        url = receiver.url
    async with client() as post:
        with pytest.raises(ConnectionError, match=r"cannot connect to http://127.0.0.1:\d+: "):
            await post(url)
        with pytest.raises(ConnectionError, match=r"cannot connect to http\+unix://.*: No such file"):
            await post("http+unix://" + socket_path.replace("/", "%2F") + "/hook")


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (formatdate(NOW + 90, usegmt=True), 90.0),
        (formatdate(NOW - 90, usegmt=True), 0.0),
        ("soon", None),
        ("-5", None),
        ("Fri, 99 Foo 2026 99:99:99 GMT", None),
    ],
)
async def test_retry_after_is_seconds_from_now_when_it_is_seconds_or_a_date(header: str, seconds: float | None) -> None:
    with Receiver([Answer(429, headers={"Retry-After": header})]) as receiver:
        async with client() as post:
            assert (await post(receiver.url)).retry_after == seconds


async def test_name_is_refused_before_connecting_when_an_address_of_it_is_not_allowed() -> None:
    with Receiver() as receiver:
        async with client(permit=AllowList(["192.0.2.0/24"]).permit) as post:
            with pytest.raises(Unsendable, match=r"localhost \((127.0.0.1|::1)\)"):
                await post(receiver.url.replace("127.0.0.1", "localhost"))

        assert receiver.connections == 0


async def test_next_address_is_tried_when_the_first_one_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the lookup is replaced: no machine has a name with two such addresses."""
    seen: list[str] = []

    async def lookup(host: str, port: int, **_: Any) -> list[Any]:
        return [(0, 0, 0, "", (address, port)) for address in ("127.0.0.2", "127.0.0.1")]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", lookup)
    with Receiver() as receiver:
        async with client(permit=lambda host, addresses: seen.extend(addresses)) as post:
            assert (await post(f"http://two.example:{receiver.port}/")).status == 200

        assert seen == ["127.0.0.2", "127.0.0.1"]
        assert receiver.requests[0].headers["host"] == f"two.example:{receiver.port}"


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A self-signed certificate of localhost, with its key in the same file."""
    if shutil.which("openssl") is None:
        missing("openssl")
    path = tmp_path / "cert.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    made = subprocess.run(
        [*command, "-keyout", path, "-out", tmp_path / "only.pem"], check=False, capture_output=True, timeout=30
    )
    assert made.returncode == 0, made.stderr
    path.write_bytes(path.read_bytes() + (tmp_path / "only.pem").read_bytes())
    return path


async def test_https_is_refused_until_the_certificate_is_trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate)
    with Receiver(tls=server) as receiver:
        async with client() as post:
            with pytest.raises(ConnectionError, match=r"cannot connect to https://127.0.0.1:.*certificate"):
                await post(receiver.url)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        async with client() as post:
            await post(receiver.url)
            answer = await post(receiver.url)

        assert answer.status == 200
        assert [request.connection for request in receiver.requests] == [2, 2]
