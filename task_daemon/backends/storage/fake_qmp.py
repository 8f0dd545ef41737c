"""A monitor on a real socket that answers from a list of jobs, or misbehaves in one chosen manner.

For tests and for trying out a zone without QEMU. Several clients at once are served, unlike by a real monitor.
"""

import contextlib
import json
import socket
import threading
from collections.abc import Callable
from typing import Any

GREETING = {"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "fake"}, "capabilities": []}}
HUGE = 11 * 1024 * 1024  # bytes; qemu.qmp reads lines of at most 10 MiB

Reply = Callable[[dict[str, Any]], bytes | None]


def _line(message: Any) -> bytes:
    return json.dumps(message).encode() + b"\r\n"


GREETINGS: dict[str, bytes | None] = {
    "no greeting": b"",
    "half a greeting": _line(GREETING)[:-2],
    "http": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "another greeting": _line({"hello": "world"}),
    "bytes that are no text": b"\xff\xfe\x00\n",
    "hangs up at once": None,
}
"""What is sent instead of the greeting; None: hang up."""

REPLIES: dict[str, Reply] = {
    "silence": lambda _: b"",
    "half a reply": lambda command: _line({"return": {}, "id": command.get("id")})[:-6],
    "garbage": lambda _: b"}{ nonsense\n",
    "an array": lambda _: _line([1, 2, 3]),
    "a foreign id": lambda _: _line({"return": [], "id": "somebody else's"}),
    "an error without id": lambda _: _line({"error": {"class": "GenericError", "desc": "JSON parse error"}}),
    "a malformed error": lambda command: _line({"error": {"oops": 1}, "id": command.get("id")}),
    "a refusal": lambda command: _line({"error": {"class": "GenericError", "desc": "no"}, "id": command.get("id")}),
    "a huge line": lambda command: _line({"return": ["x" * HUGE], "id": command.get("id")}),
    "null": lambda command: _line({"return": None, "id": command.get("id")}),
    "a number": lambda command: _line({"return": 7, "id": command.get("id")}),
    "bytes that are no text": lambda _: b"\xff\xfe\n",
    "hanging up": lambda _: None,
}
"""What is sent instead of the reply to a command (after the handshake); None: hang up."""


class FakeQmp:
    """Serves `path` until closed. `greeting` and `reply` are names of the tables above; both may be changed at any time.

    `jobs` is the answer to query-jobs, whatever it holds; `commands` are the names of the commands received so far.
    """

    def __init__(self, path: str, greeting: str = "", reply: str = "") -> None:
        self.greeting = greeting
        self.reply = reply
        self.jobs: Any = []
        self.commands: list[str] = []
        self.connections = 0
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(path)
        self._listener.listen()
        self._run(self._accept)

    def __enter__(self) -> "FakeQmp":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._shut(self._listener)
        with self._lock:
            for sock in self._open:
                self._shut(sock)
            threads = list(self._threads)
        for thread in threads:
            thread.join(5)
        self._listener.close()

    def send_event(self, name: str, **data: Any) -> None:
        """To all clients that are there."""
        event = _line({"event": name, "data": data, "timestamp": {"seconds": 0, "microseconds": 0}})
        with self._lock:
            for sock in self._open:
                sock.sendall(event)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                with self._lock:
                    self.connections += 1
                    self._open.add(sock)
                self._run(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        try:
            with sock, contextlib.suppress(OSError):
                greeting = GREETINGS[self.greeting] if self.greeting else _line(GREETING)
                if greeting is not None:
                    sock.sendall(greeting)
                    self._converse(sock)
        finally:
            with self._lock:
                self._open.discard(sock)

    def _converse(self, sock: socket.socket) -> None:
        """qemu.qmp sends its commands without a newline, so they are told apart by their JSON."""
        pending = ""
        while received := sock.recv(65536):
            pending += received.decode()
            while pending := pending.lstrip():
                try:
                    command, end = json.JSONDecoder().raw_decode(pending)
                except ValueError:
                    break
                pending = pending[end:]
                reply = self._answer(command)
                if reply is None:
                    return
                sock.sendall(reply)

    def _answer(self, command: dict[str, Any]) -> bytes | None:
        name = str(command.get("execute"))
        self.commands.append(name)
        if name != "qmp_capabilities" and self.reply:
            return REPLIES[self.reply](command)
        return _line({"return": self.jobs if name == "query-jobs" else [] if "block" in name else {}, "id": command.get("id")})

    def _run(self, function: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=function, args=arguments, name="fake-qmp", daemon=True)
        with self._lock:
            self._threads.append(thread)
        thread.start()

    @staticmethod
    def _shut(sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
