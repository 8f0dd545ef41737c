"""Keeps the store small: removes finished tasks when their retention is over."""

import asyncio
import logging

from task_daemon.core.ports import Clock, Engine

log = logging.getLogger("task_daemon.tracking")

EVERY = 60.0  # seconds between two rounds
SECONDS_A_DAY = 86_400.0
ROUND = 1000  # tasks the engine removes in one call at most


class Janitor:
    """`retention_days`: finished tasks are kept so long; `retention_tasks`: and at most so many."""

    def __init__(self, engine: Engine, clock: Clock, retention_days: float, retention_tasks: int) -> None:
        self._engine = engine
        self._clock = clock
        self._days = retention_days
        self._tasks = retention_tasks

    async def run(self) -> None:
        """Until cancelled. A full or failing disk stops neither the janitor nor the daemon."""
        never = asyncio.Event()
        while True:
            await self._clock.sleep(self._clock.monotonic() + EVERY, never)
            never.clear()
            try:
                await self.sweep()
            except Exception:
                log.exception("cannot remove old tasks: tried again in %g s", EVERY)

    async def sweep(self) -> int:
        """One round; returns how many tasks were removed."""
        removed = 0
        while True:
            count = await self._engine.purge(self._clock.now() - self._days * SECONDS_A_DAY, self._tasks)
            removed += count
            if count < ROUND:
                return removed
