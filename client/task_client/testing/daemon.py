"""The daemon that tests register with, together with a client and a receiver."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from task_client.client import Client
from task_client.testing.receiver import Receiver
from task_daemon.virtual import VirtualDaemon

ZONES = ("zone1", "zone2")
POLL_INTERVAL = 60.0  # seconds; what has happened by the end of an `advance` is known then whatever it is


class TaskDaemon:
    """A real daemon (socket, store on disk, callbacks over HTTP) in this process. Time stands still until `advance`.

    `zones`: names of the zones, each with the simulated backend, which knows all actions of storage and those that scenarios
    name. `configuration`: TOML for other tables, as in etc/task-daemon.toml. `home`: an empty directory with a short path.
    """

    def __init__(
        self, home: Path, zones: Sequence[str] = ZONES, poll_interval: float = POLL_INTERVAL, configuration: str = ""
    ) -> None:
        self._daemon = VirtualDaemon(home, zones, poll_interval, configuration)
        self.socket = self._daemon.socket
        self.client = Client(self.socket)
        self.receiver = Receiver(str(home / "receiver.sock"))

    @property
    def now(self) -> datetime:
        """The daemon's time."""
        return datetime.fromtimestamp(self._daemon.clock.now(), UTC)

    def scenario(self, *, action: str = "*", id: str = "*", **members: Any) -> None:  # noqa: A002 - the contract's word
        """How the tasks go that match `action` and `id` (shell patterns), before what was said earlier. Without any: 10 s.

        `finish_after` seconds; `fail_at` percent, with `message`; `stall_at` percent, `stall_for` seconds (for ever);
        `vanish_at` percent; `size` in bytes. Raises ValueError naming a wrong one.
        """
        self._daemon.script(action=action, id=id, **members)

    def advance(self, seconds: float = 0.0, *, minutes: float = 0.0, hours: float = 0.0, days: float = 0.0) -> None:
        """Let time pass. Polls, deadlines, callbacks and their retries come in their order, each at its moment, and all that is
        due by then has been done when this returns."""
        span = seconds + 60 * minutes + 3600 * hours + 86_400 * days
        if span < 0:
            raise ValueError(f"cannot advance by {span:g} s: time does not go back")
        self._daemon.advance(span)

    def close(self) -> None:
        self.client.close()
        self._daemon.stop()
        self.receiver.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
