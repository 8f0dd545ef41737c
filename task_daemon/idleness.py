"""When a daemon that is started by the first connection may end: nobody is connected, and nothing is left to be done."""

import asyncio
import logging
from collections.abc import Callable

from task_daemon.api.server import ApiServer
from task_daemon.core.errors import Refusal
from task_daemon.core.ports import Clock, Engine

log = logging.getLogger("task_daemon.main")

LOOK_EVERY = 1.0  # seconds


class Idleness:
    """Looks now and then whether the daemon has been idle for so many `seconds`, and then closes its door and calls `end`.

    Whoever connects from then on waits in the service manager's socket, and has it start the daemon again: nobody is
    accepted that would be cut off.
    """

    def __init__(self, engine: Engine, server: ApiServer, clock: Clock, seconds: float, end: Callable[[], None]) -> None:
        self._engine = engine
        self._server = server
        self._clock = clock
        self._seconds = seconds
        self._end = end

    async def run(self) -> None:
        """Until the end, or until cancelled."""
        never = asyncio.Event()
        since, accepted = self._clock.monotonic(), self._server.accepted
        while True:
            await self._clock.sleep(self._clock.monotonic() + min(LOOK_EVERY, self._seconds), never)
            never.clear()
            now = self._clock.monotonic()
            if self._needed() or self._server.accepted != accepted:
                since, accepted = now, self._server.accepted
            elif now - since >= self._seconds:
                if await self._owing():
                    since = now
                elif not self._needed() and self._server.accepted == accepted:
                    self._server.close_door()
                    log.info("idle for %g s: the next connection starts the daemon again", self._seconds)
                    self._end()
                    return

    def _needed(self) -> bool:
        status = self._engine.status()
        if self._server.connections or status["loading"] or status["live"] or status["untidy"]:
            return True
        return bool(status["outbox"]["in_memory"] or status["outbox"]["in_flight"])

    async def _owing(self) -> bool:
        """Whether callbacks are still to be made; yes if that cannot be told."""
        try:
            return (await self._engine.backlog()).pending > 0
        except Refusal:
            return True
