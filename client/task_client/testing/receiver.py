"""A receiver of callbacks: it remembers each call and answers as it was told."""

import json
import threading
from collections import deque
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any

from task_client.types import Task
from task_client.unix import socket_url


@dataclass(frozen=True)
class Call:
    """One try of a callback. `answered`: the status it got. Header names are in lower case."""

    headers: dict[str, str]
    body: dict[str, Any]
    answered: int

    @property
    def id(self) -> str:
        """The same for every try of one callback: receivers drop repeats by it."""
        return self.headers.get("webhook-id", "")

    @property
    def type(self) -> str:
        """`task.succeeded`, `task.failed`, ..."""
        return str(self.body.get("type"))

    @property
    def task(self) -> Task:
        """The task as the callback tells it."""
        return Task.read(self.body.get("data", {}).get("task", {}))


class Receiver(ThreadingMixIn, UnixStreamServer):
    """Listens on a Unix socket; `url` is what to register as the callback. Answers 200 unless told otherwise."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, path: str) -> None:
        self.url = socket_url(path, "/callback")
        self.calls: list[Call] = []
        self._answers: deque[int] = deque()
        self._guard = threading.Lock()
        super().__init__(path, _Handler)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), name="receiver", daemon=True)
        self._thread.start()

    @property
    def accepted(self) -> list[Call]:
        """The calls that were answered with 2xx, repeats left out."""
        found = {call.id: call for call in reversed(self.calls) if 200 <= call.answered < 300}
        return list(reversed(found.values()))

    def answer(self, *statuses: int) -> None:
        """The statuses of the next calls, in order; after them 200 again."""
        with self._guard:
            self._answers.extend(statuses)

    def take(self, headers: dict[str, str], body: bytes) -> int:
        """Remember a call; the status to answer it with."""
        with self._guard:
            status = self._answers.popleft() if self._answers else 200
            self.calls.append(Call(headers, json.loads(body), status))
            return status

    def close(self) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status = self.server.take({name.lower(): value for name, value in self.headers.items()}, body)
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's word
        """Nothing on stderr: tests print what went wrong."""
