"""Carries deliveries out: takes what is due from the outbox, awaits the handler, has the outcome recorded. Event loop only.

At least once: a crash between the receiver's answer and the record sends the same delivery (same id) again.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from msgspec.structs import replace

from task_daemon.core.errors import Refusal
from task_daemon.core.measures import Measures
from task_daemon.core.model import Attempt, Delivery
from task_daemon.core.ports import Clock, Delivered, Later, OnDeliver, Outcome
from task_daemon.engine.outbox import Outbox

log = logging.getLogger("task_daemon.engine")

AFTER_EXCEPTION = 60.0  # seconds until a delivery whose handler raised is tried again
AFTER_NO_RECORD = 5.0  # seconds until a delivery whose outcome could not be stored is tried again
SET_BACK = 1.0  # seconds; by less than this the wall clock is slewed, not set
GRACE = 0.2  # real seconds deliveries under way are given at the end; they are sent again after the next start


class Courier:
    """`record` puts the outcome on disk and raises a Refusal when it cannot; `moved` is called after every step."""

    def __init__(
        self,
        outbox: Outbox,
        clock: Clock,
        send: OnDeliver,
        record: Callable[[Sequence[Delivery]], Awaitable[None]],
        moved: Callable[[], None],
        measures: Measures,
    ) -> None:
        self._outbox = outbox
        self._clock = clock
        self._send = send
        self._record = record
        self._moved = moved
        self._measures = measures
        self._ahead = clock.now() - clock.monotonic()  # of the wall clock
        self._under_way: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def busy(self) -> bool:
        return bool(self._under_way)

    def pump(self) -> None:
        """Send everything that is due and has room."""
        if self._closed:
            return
        for row in self._outbox.take(self._now()):
            task = asyncio.get_running_loop().create_task(self._deliver(row))
            self._under_way.add(task)
            task.add_done_callback(self._done)

    async def close(self) -> None:
        self._closed = True
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=GRACE)
        for task in list(self._under_way):
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("cannot record a delivery: %s", error, exc_info=error)
        self._moved()

    async def _deliver(self, row: Delivery) -> None:
        outcome = await self._outcome(row)
        now = self._now()
        versions = self._outbox.judge(row, outcome, now)
        try:
            await self._record(versions)
        except Refusal as error:
            log.error("cannot record the outcome of delivery %s: %s; it will be sent again", row.id, error)
            outcome = Later(outcome.attempt, AFTER_NO_RECORD, target_down=False)
            versions = [replace(row, next_at=now + AFTER_NO_RECORD)]
        self._count(row, outcome, now)
        self._outbox.settle(row, versions, outcome, now)
        self.pump()

    def _count(self, row: Delivery, outcome: Outcome, now: float) -> None:
        self._measures.attempts[row.via, type(outcome).__name__.lower()] += 1
        self._measures.attempt.add(outcome.attempt.seconds)
        if isinstance(outcome, Delivered):
            self._measures.told.add(max(0.0, now - row.created_at))

    def _now(self) -> float:
        """Wall time; if the clock was set back, the outbox learns it first."""
        now = self._clock.now()
        ahead, before = now - self._clock.monotonic(), self._ahead
        self._ahead = ahead
        if ahead < before - SET_BACK:
            log.warning("the wall clock was set back by %.0f s; callbacks wait no longer for that", before - ahead)
            self._outbox.set_back(before - ahead)
        return now

    async def _outcome(self, row: Delivery) -> Outcome:
        try:
            return await self._send(row)
        except Exception as error:
            log.exception(
                "cannot send delivery %s of task %s: the sender raised; again in %g s", row.id, row.uid, AFTER_EXCEPTION
            )
            return Later(
                Attempt(at=self._clock.now(), error=f"{type(error).__name__}: {error}"), AFTER_EXCEPTION, target_down=False
            )
