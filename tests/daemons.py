"""A real daemon in a process of its own, for tests that start, kill and restart it."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from task_client import Client
from tests.waiting import PATIENCE, eventually


class Daemon:
    """`config` is TOML text. The socket and everything else lies in `home`, which must have a short path."""

    def __init__(
        self, home: Path, config: str = "", arguments: tuple[str, ...] = (), env: Mapping[str, str] | None = None
    ) -> None:
        self.home = home
        self.workspace = home / "w"
        self.socket = str(home / "d.sock")
        self.log = home / "daemon.log"
        self._arguments = arguments
        self._env = {**os.environ, **(env or {})}
        self._config = home / "task-daemon.toml"
        self._config.write_text(config)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def ended(self) -> int | None:
        """The exit code, once it has ended."""
        assert self._process is not None
        return self._process.poll()

    def start(self, ready: bool = True) -> Self:
        command = [sys.executable, "-m", "task_daemon", f"--workspace={self.workspace}", f"--unix-socket={self.socket}"]
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [*command, f"--config-file={self._config}", *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._env,
            )
        if ready:
            self.await_ready()
        return self

    def run(self) -> int:
        """Start it where it will not stay; the exit code."""
        with ExitStack() as stack:
            stack.push(self.start(ready=False))
            return self.wait()

    def await_ready(self) -> None:
        eventually("the daemon accepts connections", self._accepts)

    def _accepts(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"the daemon ended with {self._process.returncode}: {self.said()}"
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(self.socket)
            except OSError:
                return False
        return True

    def client(self, timeout: float = 30.0) -> Client:
        return Client(self.socket, timeout=timeout)

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and its end."""
        self.signal(signal.SIGKILL)
        self.wait()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def wait(self, seconds: float = PATIENCE) -> int:
        assert self._process is not None
        return self._process.wait(seconds)

    def said(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-4000:] if self.log.exists() else ""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()
