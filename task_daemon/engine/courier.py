"""Carries deliveries out: takes what is due from the outbox, awaits the handler, has the outcome recorded. Event loop only.

At least once: a crash between the receiver's answer and the record sends the same delivery (same id) again. Outcomes are
recorded in groups, because a commit costs more than a callback: they wait for company as long as something is under way, but
no longer than `COMPANY`.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

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
COMPANY = 0.01  # real seconds an outcome waits for others to be recorded with
GROUP = 64  # outcomes that are recorded without waiting any longer


class Settled(NamedTuple):
    """A delivery that was answered; the versions of it and of the later parts of its group that are to be on disk."""

    row: Delivery
    versions: Sequence[Delivery]


class Courier:
    """`record` puts outcomes on disk, all or none, and raises a Refusal when it cannot; `moved` is called after every step."""

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
        self._answered: list[Settled] = []
        self._recordings: set[asyncio.Task[None]] = set()
        self._company: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def busy(self) -> bool:
        return bool(self._under_way or self._answered or self._recordings)

    def pump(self) -> None:
        """Send everything that is due and has room."""
        if self._closed:
            return
        self._carry(self._outbox.take(self._now()))

    def _carry(self, rows: Sequence[Delivery]) -> None:
        for row in rows:
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
        self._record_soon(at_once=True)
        with suppress(TimeoutError):
            async with asyncio.timeout(GRACE):
                while self._recordings:
                    await asyncio.wait(self._recordings)

    async def _deliver(self, row: Delivery) -> None:
        """One delivery after the other, as long as there are any: a new asyncio task for each would cost as much as sending."""
        outbox = self._outbox
        going = True
        while going:
            try:
                outcome = await self._send(row)
            except Exception as error:
                outcome = self._surprised(row, error)
            now = self._now()
            self._count(row, outcome, now)
            self._answered.append(Settled(row, outbox.judge(row, outcome, now)))
            outbox.answered(row, outcome, now)
            rows = [] if self._closed else outbox.take(now)
            going = bool(rows)
            if going:
                row = rows[0]
                if len(rows) > 1:
                    self._carry(rows[1:])
                self._record_soon(at_once=False)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("cannot carry a delivery out: %s", error, exc_info=error)
            self._moved()
        self._record_soon(at_once=not self._under_way)

    # ---- recording

    def _record_soon(self, at_once: bool) -> None:
        """A group does not wait for the one before it: the store takes in one commit what came during the last."""
        if not self._answered:
            return
        loop = asyncio.get_running_loop()
        if at_once or len(self._answered) >= GROUP:
            if self._company is not None:
                self._company.cancel()
                self._company = None
            group, self._answered = self._answered, []
            recording = loop.create_task(self._record_group(group))
            self._recordings.add(recording)
            recording.add_done_callback(self._recorded_group)
        elif self._company is None:
            self._company = loop.call_later(COMPANY, self._enough_company)

    def _enough_company(self) -> None:
        self._company = None
        self._record_soon(at_once=True)

    async def _record_group(self, group: Sequence[Settled]) -> None:
        for settled in await self._recorded(group):
            self._outbox.settle(settled.row, settled.versions)
        self.pump()

    def _recorded_group(self, recording: asyncio.Task[None]) -> None:
        self._recordings.discard(recording)
        if not recording.cancelled() and (error := recording.exception()) is not None:
            log.error("cannot go on after outcomes of deliveries were recorded: %s", error, exc_info=error)
        self._moved()

    async def _recorded(self, group: Sequence[Settled]) -> Sequence[Settled]:
        """What is on disk afterwards, and so in memory: a delivery whose outcome cannot be stored is to be sent again."""
        try:
            await self._record([version for settled in group for version in settled.versions])
        except Exception as error:
            if len(group) > 1 and not isinstance(error, Refusal):  # one of them cannot be stored; it must not keep the others
                return [settled for one in group for settled in await self._recorded([one])]
            for row, _ in group:
                log.error(
                    "cannot record the outcome of delivery %s: %s; it will be sent again", row.id, error, extra={"uid": row.uid}
                )
            again = self._now() + AFTER_NO_RECORD
            return [Settled(row, [replace(row, next_at=again)]) for row, _ in group]
        return group

    # ---- sending

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

    def _surprised(self, row: Delivery, error: Exception) -> Outcome:
        log.error(
            "cannot send delivery %s of task %s: the sender raised; again in %g s",
            *(row.id, row.uid, AFTER_EXCEPTION),
            exc_info=error,
            extra={"uid": row.uid},
        )
        return Later(Attempt(at=self._clock.now(), error=f"{type(error).__name__}: {error}"), AFTER_EXCEPTION, target_down=False)
