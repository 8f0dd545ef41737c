"""A task daemon to measure, in a process of its own."""

import json
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.harness.process import WITHIN, Process, module

HEADER = """
[daemon]
poll_interval = {poll_interval}
log_level = "warning"
[limits]
live_tasks = 4000000
live_tasks_per_uid = 4000000
connections = 4096
connections_per_uid = 4096
"""
SIMULATED = """
[zones.sim]
backend = "simulated"
scenario = [{ id = "*", finish_after = 1000000 }]
"""


def config(*zones: str, poll_interval: float = 10.0, more: str = "") -> str:
    """Configuration with wide limits and some zones (TOML); without any: one, `sim`, whose work never ends. `more` is
    inserted before the zones."""
    return HEADER.format(poll_interval=poll_interval) + more + "".join(zones or (SIMULATED,))


class Daemon(Process):
    """Started when made; ready when made, too, unless `wait` is false. `home` must have a short path and may be one that an
    earlier daemon has left behind: its tasks are still there."""

    def __init__(
        self,
        home: Path,
        text: str | None = None,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        wait: bool = True,
        entry: tuple[str, ...] = ("task_daemon",),
    ) -> None:
        home.mkdir(exist_ok=True)
        self.socket = str(home / "s")
        self.workspace = home / "w"
        file = home / "c.toml"
        file.write_text(config() if text is None else text)
        options = [f"--workspace={self.workspace}", f"--unix-socket={self.socket}", f"--config-file={file}"]
        super().__init__(module(*entry, *options, *arguments), home / "log", env)
        if wait:
            try:
                self.ready_after = self.await_ready()
            except BaseException:
                self.kill()
                raise

    def await_ready(self, within: float = WITHIN) -> float:
        """Seconds from its start until `/readyz` answers 200."""
        return self.await_that("it was ready", self._ready, within)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON of the answer. Ends the benchmark when the answer is not a success."""
        head, _, answer = self.answer(method, path, body).partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 2"):
            raise SystemExit(f"cannot {method} {path}: the daemon answered {head[:40]!r} {answer[:300]!r}")
        return json.loads(answer) if answer else None

    def answer(self, method: str, path: str, body: Any = None) -> bytes:
        """All bytes of the answer, on a connection of its own. Raises OSError."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(WITHIN)
            connection.connect(self.socket)
            connection.sendall(request(method, path, body, "Connection: close\r\n"))
            answer = b""
            while piece := connection.recv(1 << 20):
                answer += piece
        return answer

    def status(self) -> Any:
        """The inner state from `GET /v1/info`."""
        return self.ask("GET", "/v1/info")["status"]

    def until(self, what: str, holds: Callable[[Any], bool], within: float = WITHIN) -> float:
        """Seconds since it was spawned when `holds` of the inner state."""
        return self.await_that(what, lambda: holds(self.status()), within)

    def fill(self, count: int, task: Callable[[int], dict[str, Any]] | None = None, batch: int = 1000) -> None:
        """Register so many tasks, by default ones that never end, in the zone `sim`."""
        make = task or (lambda n: draft(f"live-{n}"))
        with Connection(self.socket) as connection:
            for start in range(0, count, batch):
                tasks = [make(n) for n in range(start, min(start + batch, count))]
                connection.ask("POST", "/v1/tasks:batch", {"tasks": tasks})

    def _ready(self) -> bool:
        try:
            return b" 200 " in self.answer("GET", "/readyz")[:20]
        except OSError:
            return False


class Connection:
    """A kept connection in lockstep, for what is not measured or measured one by one."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(WITHIN)
        self._socket.connect(path)
        self._stream = self._socket.makefile("rb")

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON of the answer. Ends the benchmark when the answer is not a success."""
        self._socket.sendall(request(method, path, body))
        status = self._stream.readline()
        length = 0
        while (line := self._stream.readline().strip()) != b"":
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        answer = self._stream.read(length)
        if not status.startswith(b"HTTP/1.1 2"):
            raise SystemExit(f"cannot {method} {path}: the daemon answered {status!r} {answer[:300]!r}")
        return json.loads(answer) if answer else None

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        self._socket.close()


def draft(name: str, zone: str = "sim", **members: Any) -> dict[str, Any]:
    """A registration of simulated work."""
    return {"id": name, "action": "simulated", "zone": zone, **members}


def request(method: str, path: str, body: Any = None, more: str = "") -> bytes:
    if body is None:
        return f"{method} {path} HTTP/1.1\r\nHost: d\r\n{more}\r\n".encode()
    data = json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: d\r\n{more}Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    return head.encode() + data
