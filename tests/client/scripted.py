"""A real HTTP/1.1 server on a Unix socket that answers by a script and remembers what it was asked."""

import json
import os
import socket
import socketserver
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qsl, urlsplit

BODY_LIMIT = 1 << 20  # longer bodies are answered without being read, and the connection is closed


@dataclass(frozen=True)
class Reply:
    """What to answer. `drop`: close without answering; `after`: not before this is set."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    drop: bool = False
    after: threading.Event | None = None


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    query: list[tuple[str, str]]
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.raw)


def problem(status: int, code: str, detail: str, retry_after: int | None = None, **more: Any) -> Reply:
    headers = {"Content-Type": "application/problem+json"}
    if retry_after is not None:
        headers["Retry-After"] = str(retry_after)
    return Reply(status, {"code": code, "detail": detail, "status": status, **more}, headers)


class ScriptedServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    request_queue_size = 64
    daemon_threads = False
    block_on_close = True

    def __init__(self, path: str, script: Mapping[tuple[str, str], Sequence[Reply]] | None = None) -> None:
        """`script`: for tests in which somebody is already asking when the server comes up."""
        self.path = path
        self.asked: list[Asked] = []
        self.connections = 0
        self._open: set[socket.socket] = set()
        self._script = {route: list(replies) for route, replies in (script or {}).items()}
        self._lock = threading.Lock()
        if os.path.exists(path):
            os.unlink(path)
        super().__init__(path, _Handler)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        self._thread.start()

    def on(self, method: str, path: str, *replies: Reply) -> None:
        """Replies in order; the last one again and again."""
        self._script[method, path] = list(replies)

    def take(self, asked: Asked) -> Reply:
        with self._lock:
            self.asked.append(asked)
            replies = self._script.get((asked.method, asked.path))
            if not replies:
                return problem(404, "not-found", f"the script has no {asked.method} {asked.path}")
            return replies.pop(0) if len(replies) > 1 else replies[0]

    def opened(self, connection: socket.socket) -> None:
        with self._lock:
            self.connections += 1
            self._open.add(connection)

    def closed(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.discard(connection)

    def stop(self) -> None:
        """Like a daemon that has ended: connections cut, the socket file left behind."""
        self.shutdown()
        self._thread.join(10)
        with self._lock:
            for connection in self._open:
                with suppress(OSError):  # the other end was quicker
                    connection.shutdown(socket.SHUT_RDWR)
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ScriptedServer

    def setup(self) -> None:
        super().setup()
        self.server.opened(self.connection)

    def finish(self) -> None:
        self.server.closed(self.connection)
        super().finish()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass

    def _serve(self) -> None:
        url = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        raw = b"" if length > BODY_LIMIT else self.rfile.read(length)
        headers = {name.lower(): value for name, value in self.headers.items()}
        reply = self.server.take(Asked(self.command, url.path, parse_qsl(url.query), headers, raw))
        if reply.after is not None:
            reply.after.wait(10)
        if reply.drop:
            self.close_connection = True
            return
        data = b"" if reply.body is None else reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        try:
            self.send_response(reply.status)
            for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                self.send_header(name, value)
            if length > BODY_LIMIT:
                self.send_header("Connection", "close")
                self.close_connection = True
            if reply.status not in (204, 304):
                self.send_header("Content-Length", str(len(data)))
            self._headers_buffer.append(b"\r\n" + (data if reply.status not in (204, 304) else b""))  # type: ignore[attr-defined]
            self.flush_headers()  # all in one piece, as the daemon sends it
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the client has given up waiting

    do_GET = do_POST = do_DELETE = do_PUT = _serve  # noqa: N815 - the names http.server looks for


def task(uid: str = "u1", state: str = "running", **members: Any) -> dict[str, Any]:
    """A task as the contract shows it, with what a test wants to be different."""
    done = state in ("succeeded", "failed", "cancelled", "lost")
    return {
        "uid": uid,
        "id": "disk-1",
        "action": "backup",
        "zone": "vm1",
        "state": state,
        "done": done,
        "revision": 1,
        "mode": "track",
        "progress": {"percent": None, "done": None, "total": None},
        "error": None,
        "flags": [],
        "labels": {},
        "created_at": "2026-01-02T03:04:05.678Z",
        **members,
    }
