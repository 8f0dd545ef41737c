"""What `AsyncClient` sends, over Tornado's own HTTP client; nothing else of the client imports Tornado.

Tornado's client opens a connection for each request and goes on reading when nobody waits for the answer any more. So each
request has a client of its own, whose connection is closed with it: whoever is cancelled leaves nothing behind.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from tornado.httpclient import HTTPError, HTTPRequest, HTTPResponse
from tornado.iostream import IOStream, StreamClosedError
from tornado.simple_httpclient import HTTPTimeoutError, SimpleAsyncHTTPClient
from tornado.tcpclient import TCPClient

from task_client.calls import refusal_of
from task_client.errors import AnswerUnknown, DaemonUnreachable
from task_client.transport import Answer
from task_client.unix import open_unix

PIECES = 16  # of a stream that are kept for a reader who is slow; then the daemon waits
CONNECTING = 30.0  # seconds; connecting to AF_UNIX never waits, with any time-out it succeeds or fails at once


class _Line(TCPClient):
    """Whatever host is asked for, it is one connection to one Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path
        self._stream: IOStream | None = None
        self._closed = False

    async def connect(self, *_: Any, **options: Any) -> IOStream:
        if self._closed:
            raise StreamClosedError
        self._stream = IOStream(open_unix(self._path, CONNECTING), max_buffer_size=options.get("max_buffer_size"))
        return self._stream

    def close(self) -> None:
        super().close()
        self._closed = True
        if self._stream is not None:
            self._stream.close()


def _client(path: str) -> SimpleAsyncHTTPClient:
    http = SimpleAsyncHTTPClient(force_instance=True, max_clients=1)
    http.tcp_client.close()
    http.tcp_client = _Line(path)
    return http


def _asked(method: str, target: str, headers: Mapping[str, str], timeout: float, **more: Any) -> HTTPRequest:
    return HTTPRequest(
        f"http://localhost{target}", method, dict(headers), connect_timeout=timeout, request_timeout=timeout,
        follow_redirects=False, decompress_response=False, allow_nonstandard_methods=True, **more,
    )  # fmt: skip


async def request(
    path: str, method: str, target: str, headers: Mapping[str, str], body: bytes | None = None, timeout: float = 30.0
) -> Answer:
    """One request, once, as `Transport.request`; `timeout` bounds the whole of it, in seconds.

    Who cancels it closes the connection.
    """
    http = _client(path)
    answering = _fetch(http, _asked(method, target, headers, timeout, body=body))
    try:
        await asyncio.wait([answering])
    finally:
        http.close()
    return _answer(answering, f"cannot tell whether {method} {target} was carried out", timeout)


async def pieces(path: str, target: str, headers: Mapping[str, str], silence: float) -> AsyncGenerator[bytes, None]:
    """The body of an answer that goes on, as it comes, until it ends or nothing has come for `silence` seconds.

    Raises RequestRefused, DaemonUnreachable, and AnswerUnknown if it ends before it has begun.
    """
    got: asyncio.Queue[bytes] = asyncio.Queue(PIECES)
    head: list[str] = []
    http = _client(path)
    left = False

    async def take(piece: bytes) -> None:
        if not left:
            await got.put(piece)

    answering = _fetch(
        http, _asked("GET", target, headers, 0.0, streaming_callback=take, header_callback=head.append)
    )  # 0: for as long as it goes on
    refused: list[bytes] = []
    begun = False
    try:
        while True:
            if got.empty():
                getting = asyncio.ensure_future(got.get())
                awaited: list[asyncio.Future[Any]] = [getting, answering]
                try:
                    await asyncio.wait(awaited, timeout=silence, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    getting.cancel()
                if not getting.done():
                    break
                piece = getting.result()
            else:
                piece = got.get_nowait()
            if " 200 " in head[0]:
                begun = True
                yield piece
            else:
                refused.append(piece)
    finally:
        left = True
        http.close()
        if got.full():
            got.get_nowait()  # Tornado may be waiting for room
    if not begun:
        if not answering.done():
            raise AnswerUnknown(f"cannot follow {target}: no answer within {silence:g} s")
        answer = _answer(answering, f"cannot follow {target}", silence)
        refusal = refusal_of(Answer(answer.status, answer.headers, b"".join(refused)))
        if refusal is not None:
            raise refusal


def _fetch(http: SimpleAsyncHTTPClient, asked: HTTPRequest) -> "asyncio.Future[HTTPResponse]":
    answering = http.fetch(asked, raise_error=False)
    answering.add_done_callback(lambda done: done.exception())  # looked at, also when nobody waits for it any more
    return answering


def _answer(answering: "asyncio.Future[HTTPResponse]", cannot: str, timeout: float) -> Answer:
    try:
        answer = answering.result()
    except DaemonUnreachable:
        raise
    except HTTPTimeoutError as error:
        raise AnswerUnknown(f"{cannot}: no answer within {timeout:g} s") from error
    except (HTTPError, OSError) as error:
        raise AnswerUnknown(f"{cannot}: the connection broke: {error}") from error
    return Answer(answer.code, {name.lower(): value for name, value in answer.headers.items()}, answer.body)
