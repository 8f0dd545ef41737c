"""A receiver of callbacks in a process of its own, lean enough not to be what is measured.

    python -m benchmarks.harness.receiver SOCKET [PORT-FILE]

Answers every POST with 200 and remembers when it came and the `webhook-id` it had. GET tells what came, as JSON; DELETE
forgets it.
"""

import asyncio
import http.client
import json
import signal
import socket
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from benchmarks.harness.process import Process, module

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@dataclass(frozen=True)
class Arrivals:
    """Times are those of `time.monotonic()`, which all processes of a machine share."""

    times: list[float]
    ids: list[str]  # the webhook-id of each, in the same order; "" if it had none
    subjects: list[str]  # the `id` of the task in each body; "" if there is none
    seen: list[float]  # when what each body tells of was seen (its `timestamp`, to the millisecond); 0 if it says nothing
    connections: int
    cpu_seconds: float

    @property
    def repeated(self) -> int:
        return len(self.ids) - len(set(self.ids))


class Receiver(Process):
    """`url` takes callbacks over TCP on loopback, `unix_url` over a Unix socket."""

    def __init__(self, home: Path) -> None:
        home.mkdir(exist_ok=True)
        self.socket = str(home / "s")
        port = home / "port"
        port.unlink(missing_ok=True)  # of an earlier one
        super().__init__(module("benchmarks.harness.receiver", self.socket, str(port)), home / "log")
        self.await_that("it listened", port.exists)
        self.port = int(port.read_text())
        self.url = f"http://127.0.0.1:{self.port}/hook"
        self.unix_url = f"http+unix://{quote(self.socket, safe='')}/hook"

    def count(self) -> int:
        """How many callbacks have come."""
        return int(self._ask("GET", "/count"))

    def arrivals(self) -> Arrivals:
        return Arrivals(**self._ask("GET", "/"))

    def await_count(self, count: int, within: float, every: float = 0.002) -> float:
        """Seconds since the receiver was spawned when so many callbacks had come. Asking takes it 1 ms each time."""
        return self.await_that(f"{count} callbacks came", lambda: self.count() >= count, within, every)

    def forget(self) -> None:
        self._ask("DELETE", "/")

    def _ask(self, method: str, path: str) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path)
            return json.loads(connection.getresponse().read() or b"null")
        finally:
            connection.close()


class _Book:
    def __init__(self) -> None:
        self.connections = 0
        self.clear()

    def clear(self) -> None:
        self.times: list[float] = []
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []

    def told(self) -> bytes:
        told = {
            "times": self.times,
            "ids": [_after(head, b"webhook-id:", b"\r") for head in self.heads],
            "subjects": [_subject(body) for body in self.bodies],
            "seen": [_seen(body) for body in self.bodies],
            "connections": self.connections,
            "cpu_seconds": time.process_time(),
        }
        return json.dumps(told).encode()


class _Caller(asyncio.Protocol):
    def __init__(self, book: _Book) -> None:
        self._book = book
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._book.connections += 1

    def data_received(self, data: bytes) -> None:
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            head = self._data[:end].lower() + b"\r"
            length = int(_after(head, b"\ncontent-length:", b"\r") or 0)
            if len(self._data) < end + 4 + length:
                return
            body, self._data = self._data[end + 4 : end + 4 + length], self._data[end + 4 + length :]
            self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        book = self._book
        if head.startswith((b"post", b"put")):
            book.times.append(time.monotonic())
            book.heads.append(head)
            book.bodies.append(body)
            self._transport.write(OK)
            return
        if head.startswith(b"delete"):
            book.clear()
        told = b"%d" % len(book.times) if head.startswith(b"get /count") else book.told() if head.startswith(b"get") else b""
        self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(told), told))


def _after(text: bytes, name: bytes, end: bytes) -> str:
    return text.partition(name)[2].partition(end)[0].strip().decode("latin-1")


def _subject(body: bytes) -> str:
    try:
        return str(json.loads(body)["data"]["task"]["id"])
    except (ValueError, LookupError, TypeError):
        return ""


def _seen(body: bytes) -> float:
    try:
        stamp = datetime.fromisoformat(json.loads(body)["timestamp"]).timestamp()
    except (ValueError, LookupError, TypeError):
        return 0.0
    return stamp - time.time() + time.monotonic()


async def serve(path: str, port_file: str) -> None:
    book = _Book()
    loop = asyncio.get_running_loop()
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    servers = [
        await loop.create_unix_server(lambda: _Caller(book), path, backlog=4096),
        await loop.create_server(lambda: _Caller(book), sock=listener, backlog=4096),
    ]
    new = Path(f"{port_file}.new")
    new.write_text(str(listener.getsockname()[1]))
    new.replace(port_file)
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()
    for server in servers:
        server.close()


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:]))
