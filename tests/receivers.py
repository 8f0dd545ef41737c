"""Receivers of callbacks for tests: real sockets, every request recorded, answers by a script.

with Receiver() as receiver:
    ... a delivery to receiver.url ...
    (request,) = receiver.wait(1)
"""

import contextlib
import json
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from types import TracebackType
from typing import Any, BinaryIO, Self
from urllib.parse import quote

from tests.waiting import PATIENCE


@dataclass(frozen=True)
class Answer:
    """What to do with one request. Without anything else: an HTTP answer on a connection that is kept."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    raw: bytes | None = None  # these bytes instead of an HTTP answer
    after: threading.Event | None = None  # not before this
    close: bool = False  # close the connection afterwards
    drop: bool = False  # close the connection without a byte
    never: bool = False  # keep the connection open and say nothing


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]  # names in lower case
    body: bytes
    connection: int  # counts from 1

    def json(self) -> Any:
        return json.loads(self.body)


Script = Iterable[Answer | int]


class Receiver:
    """Listens on loopback, or on a Unix socket when `path` is given. Answers by the script, then with `then` for ever."""

    def __init__(
        self,
        script: Script = (),
        *,
        path: str | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        then: Answer | int = 200,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.path = path
        self.requests: list[Request] = []
        self.connections = 0
        self.closed_connections = 0
        self._script = [_answer(item) for item in script]
        self._then = _answer(then)
        self._tls = tls
        self._changed = threading.Condition()
        self._stopped = threading.Event()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        if path is not None:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(path)
            self.url = f"http+unix://{quote(path, safe='')}/hook"
        else:
            self._listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
            self.port = self._listener.getsockname()[1]
            shown = f"[{host}]" if ":" in host else host
            self.url = f"{'https' if tls else 'http'}://{shown}:{self.port}/hook"
        self._listener.listen(128)
        self._start(self._accept)

    def answer_with(self, *answers: Answer | int) -> None:
        """Append to the script."""
        with self._changed:
            self._script += [_answer(item) for item in answers]

    def wait(self, count: int, seconds: float = PATIENCE) -> list[Request]:
        """All requests, as soon as there are `count`; fails when there are not within `seconds`."""
        self._until(lambda: len(self.requests) >= count, seconds, f"{count} requests")
        return list(self.requests)

    def wait_closed(self, count: int, seconds: float = PATIENCE) -> None:
        """Until so many connections were closed by the other side."""
        self._until(lambda: self.closed_connections >= count, seconds, f"{count} closed connections")

    def hang_up(self) -> None:
        """Close every open connection, as a restarting server does."""
        with self._changed:
            connections = list(self._open)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def say(self, data: bytes) -> None:
        """Send bytes on every open connection although nobody asked."""
        with self._changed:
            connections = list(self._open)
        for connection in connections:
            connection.sendall(data)

    def close(self) -> None:
        self._stopped.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the accepting thread
        self._listener.close()
        self.hang_up()
        for thread in self._threads:
            thread.join(PATIENCE)
        if self.path is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def respond(self, request: Request) -> Answer:
        """What to answer; called under the lock, after the request was recorded."""
        return self._script.pop(0) if self._script else self._then

    def _until(self, holds: Callable[[], bool], seconds: float, what: str) -> None:
        with self._changed:
            if not self._changed.wait_for(holds, seconds):
                raise AssertionError(f"not within {seconds:g} s: {what}; {len(self.requests)} requests came")

    def _start(self, target: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True, name="receiver")
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._changed:
                self.connections += 1
                self._open.add(connection)
                self._start(self._serve, connection, self.connections)
            if self._stopped.is_set():
                self.hang_up()

    def _serve(self, plain: socket.socket, number: int) -> None:
        connection = plain
        try:
            if self._tls is not None:
                connection = self._tls.wrap_socket(plain, server_side=True)
            with connection.makefile("rb") as stream:
                while (request := _read(stream, number)) is not None:
                    with self._changed:
                        self.requests.append(request)
                        answer = self.respond(request)
                        self._changed.notify_all()
                    if not self._act(connection, answer):
                        break
        except (OSError, ValueError):
            pass  # the other side went away
        finally:
            with self._changed:
                self._open.discard(plain)
                self.closed_connections += 1
                self._changed.notify_all()
            connection.close()

    def _act(self, connection: socket.socket, answer: Answer) -> bool:
        if answer.after is not None:
            answer.after.wait(PATIENCE)
        if answer.drop:
            return False
        if answer.never:
            return True
        connection.sendall(_wire(answer))
        return not answer.close


class RegionServer(Receiver):
    """A receiver that lets in only who brings a good X-Auth-Token; everybody else gets 401."""

    def __init__(self, valid: Callable[[str], bool], script: Script = (), **options: Any) -> None:
        super().__init__(script, **options)
        self._valid = valid
        self.refused: list[Request] = []

    @property
    def service_url(self) -> str:
        return self.url.removesuffix("/hook") + "/v2"

    @property
    def calls(self) -> list[tuple[str, str, Any]]:
        """Method, path below the service URL and body of what was let in."""
        with self._changed:
            refused = {id(request) for request in self.refused}
            return [(r.method, r.path.removeprefix("/v2"), r.json()) for r in self.requests if id(r) not in refused]

    def respond(self, request: Request) -> Answer:
        if self._valid(request.headers.get("x-auth-token", "")):
            return super().respond(request)
        self.refused.append(request)
        return Answer(401)


def _answer(item: Answer | int) -> Answer:
    return Answer(item) if isinstance(item, int) else item


def _read(stream: BinaryIO, number: int) -> Request | None:
    line = stream.readline().decode("latin-1").split()
    if len(line) != 3:
        return None
    headers: dict[str, str] = {}
    while (text := stream.readline().decode("latin-1").strip()) != "":
        name, _, value = text.partition(":")
        headers[name.lower()] = value.strip()
    body = stream.read(int(headers.get("content-length", "0")))
    return Request(line[0], line[1], headers, body, number)


def _wire(answer: Answer) -> bytes:
    if answer.raw is not None:
        return answer.raw
    phrase = HTTPStatus(answer.status).phrase if answer.status in HTTPStatus._value2member_map_ else "?"
    headers = {"Content-Length": str(len(answer.body)), **answer.headers}
    if answer.close:
        headers["Connection"] = "close"
    lines = [f"HTTP/1.1 {answer.status} {phrase}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + answer.body
