"""A daemon of its own for a self-test: everything it has lies in one directory."""

import os
import signal
import subprocess
import time
from pathlib import Path

from task_client.client import Client
from task_client.daemon import daemon_program, is_service_on

STARTS_WITHIN = 60.0  # seconds; a disk under load may be slow
STOPS_WITHIN = 30.0
LOOK_EVERY = 0.005
LOG_SHOWN = 4000  # characters

CONFIG = """\
[daemon]
poll_interval = 0.2
log_level = "warning"
[zones.sim]
backend = "simulated"
remember = true
scenario = [
    { id = "bad-*", fail_at = 50, message = "No space left on device", finish_after = 0.5 },
    { id = "*", finish_after = 0.5 },
]
[callbacks]
schedule = [0, 0.1, 0.2, 0.5, 1, 1, 1, 1, 2, 2, 2, 2, 5, 5, 5, 5, 5]
per_target = 16
"""


class ScratchFailed(Exception):
    """The daemon did not start or stop as it should; the message says how, with the end of its log."""


class ScratchDaemon:
    """`home` is made. The daemon is a child of this process."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.socket = str(home / "s")
        self.log = home / "daemon.log"
        self.starts = 0
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        (home / "config.toml").write_text(CONFIG)
        self._child: subprocess.Popen[bytes] | None = None

    def client(self, timeout: float = 30.0) -> Client:
        return Client(self.socket, timeout=timeout)

    def start(self, ready: bool = True) -> None:
        """Raises ScratchFailed. `ready`: only return when it accepts connections."""
        command = [*daemon_program(), f"--workspace={self.home / 'w'}", f"--unix-socket={self.socket}"]
        with self.log.open("ab") as output:
            self._child = subprocess.Popen(  # noqa: S603 - our own program, no shell
                [*command, f"--config-file={self.home / 'config.toml'}"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
            )
        self.starts += 1
        if ready:
            self._await_ready(self._child)

    def kill(self) -> None:
        """SIGKILL, and its end. Raises ScratchFailed when it had ended by itself before."""
        child = self._running()
        if child.poll() is not None:
            raise ScratchFailed(f"the daemon had ended by itself with code {child.returncode}: {self.said()}")
        child.kill()
        code = child.wait(STOPS_WITHIN)
        if code != -signal.SIGKILL:
            raise ScratchFailed(f"the daemon had ended by itself with code {code}: {self.said()}")

    def stop(self) -> None:
        """SIGTERM. Raises ScratchFailed when it does not end as it should."""
        child = self._running()
        child.terminate()
        try:
            code = child.wait(STOPS_WITHIN)
        except subprocess.TimeoutExpired:
            child.kill()
            raise ScratchFailed(f"the daemon did not stop within {STOPS_WITHIN:g} s: {self.said()}") from None
        if code != 0:
            raise ScratchFailed(f"the daemon stopped with code {code}: {self.said()}")

    def discard(self) -> None:
        """Whatever state it is in: it does not run any more afterwards."""
        if self._child is not None and self._child.poll() is None:
            self._child.kill()
            self._child.wait(STOPS_WITHIN)

    def said(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-LOG_SHOWN:] if self.log.exists() else ""

    def started_work(self) -> list[str]:
        """uids, one for each time that work was really started. A kill right after a start may have kept its line from being
        written, so one that is missing proves nothing."""
        file = self.home / "w" / "zones" / "sim" / "starts.log"
        return file.read_text().split() if file.exists() else []

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._child is None:
            raise ScratchFailed("the daemon was never started")
        return self._child

    def _await_ready(self, child: "subprocess.Popen[bytes]") -> None:
        # Looks are counted, not seconds: who stops a self-test (Ctrl-Z) and goes on later has stopped its daemon as well.
        for _ in range(int(STARTS_WITHIN / LOOK_EVERY)):
            if os.path.exists(self.socket) and is_service_on(self.socket):
                return
            if child.poll() is not None:
                raise ScratchFailed(f"the daemon ended with code {child.returncode} at its start: {self.said()}")
            time.sleep(LOOK_EVERY)
        raise ScratchFailed(f"the daemon accepts no connection within {STARTS_WITHIN:g} s: {self.said()}")
