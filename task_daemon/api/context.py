"""What every request handler has at hand: the manager, the daemon around it, who may do what, and what is in flight."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from msgspec import Struct

from task_daemon.api.access import Access
from task_daemon.api.stream import Streams
from task_daemon.core.errors import Degraded, Draining, Refusal, Starting
from task_daemon.tracking.manager import TaskManager


class Phase(Struct, frozen=True):
    """How far the daemon is; `reason` is one clause for people ("the disk of the store is full"). `writable`: degraded, but
    only new work is refused, and by whoever stores it."""

    name: Literal["ready", "starting", "draining", "degraded"] = "ready"
    reason: str = ""
    writable: bool = False


class Daemon(Struct, frozen=True):
    """What only `main` knows. `started_at` is wall time; `durability` says in one sentence what an answer of 202 is worth.

    `versions`: of what it runs on, by name. `configuration`: TOML without secrets. `recent_log`: lines, oldest first.
    """

    version: str
    boot_id: str
    started_at: float
    phase: Callable[[], Phase] = Phase
    features: Sequence[str] = ()
    limits: Mapping[str, Any] = {}
    durability: str = "on disk before the answer"
    versions: Mapping[str, str] = {}
    config_file: str | None = None
    configuration: str = ""
    recent_log: Callable[[], Sequence[str]] = tuple


class Api:
    """Shared by all handlers of one application, and by the server that stops it."""

    def __init__(self, manager: TaskManager, daemon: Daemon, access: Access, streams: Streams | None = None) -> None:
        self.manager = manager
        self.daemon = daemon
        self.access = access
        self.streams = streams or Streams()
        self.answered = manager.measures().requests
        self._in_flight = 0
        self._idle = asyncio.Event()  # for whoever waits

    @property
    def in_flight(self) -> int:
        return self._in_flight

    def begin(self) -> None:
        self._in_flight += 1

    def end(self) -> None:
        self._in_flight -= 1
        if not self._in_flight:
            self._idle.set()

    async def idle(self) -> None:
        """Wait until no request is being answered."""
        while self._in_flight:
            self._idle.clear()
            await self._idle.wait()

    def unready(self, new_work: bool = False) -> Refusal | None:
        """Why nothing can be changed now (or, if so asked, no new work be taken); None if it can."""
        phase = self.daemon.phase()
        match phase.name:
            case "starting":
                return Starting(f"cannot serve yet: {phase.reason or 'the daemon is reading its store'}", retry_after=1.0)
            case "draining":
                return Draining(f"cannot accept anything new: {phase.reason or 'the daemon is stopping'}", retry_after=2.0)
            case "degraded" if phase.writable:
                if new_work:
                    return Degraded(f"cannot take new work: {phase.reason}; everything else goes on", retry_after=10.0)
            case "degraded":
                reason = phase.reason or "the store cannot be written"
                return Degraded(f"cannot change anything: {reason}; reading still works", retry_after=10.0)
        return None
