"""What is due for the live tasks goes to threads: polls to the workers, expiries to a thread of their own."""

import logging
from collections.abc import Callable, Sequence

from task_daemon.core.model import Task
from task_daemon.core.ports import Clock, Handlers
from task_daemon.engine.beats import NEVER
from task_daemon.engine.local.ledger import Ledger
from task_daemon.engine.local.workers import Aside, Job, Workers

log = logging.getLogger("task_daemon.engine")

EXPIRED_AT_ONCE = 1000
LONGEST_GIVING = 2.0  # seconds that one poll waits for those in a hurry
LOADING_GAP = 0.15  # seconds between the starts of two polls while the stored tasks are being loaded: both need the processor


class LocalBeat:
    """One poll under way, as `Handlers.poll` gets it."""

    __slots__ = ("_give_way", "_job", "gave_way_for", "token", "waited_for", "zone")

    def __init__(self, zone: str, token: int, job: Job, give_way: Callable[[], float]) -> None:
        self.zone = zone
        self.token = token
        self.waited_for = 0.0  # seconds
        self.gave_way_for = 0.0  # seconds
        self._job = job
        self._give_way = give_way

    def touch(self) -> None:
        self._job.touch()

    def waited(self, seconds: float) -> None:
        self.waited_for += seconds

    def give_way(self) -> None:
        if self.gave_way_for < LONGEST_GIVING:
            self.gave_way_for += self._give_way()


class Rounds:
    """`stir`: called on any thread when something has begun or ended, with the monotonic time at which there is something to
    do because of that. `give_way`: called by a poll, waits while somebody is in a hurry, and answers for how many seconds. The
    public methods belong to the event loop."""

    def __init__(
        self,
        ledger: Ledger,
        clock: Clock,
        handlers: Handlers,
        workers: int,
        stuck_after: Callable[[str], float],
        stir: Callable[[float], None],
        give_way: Callable[[], float],
    ) -> None:
        self.expiring = False
        self._ledger = ledger
        self._lock = ledger.lock
        self._beats = ledger.beats
        self._live = ledger.live
        self._clock = clock
        self._handlers = handlers
        self._stir = stir
        self._give_way = give_way
        self._closing = False
        self._not_before = -NEVER  # for polls, while the stored tasks are being loaded
        self._expirer = Aside("expiry")
        self.workers = Workers(workers, clock, stuck_after, self._stranded, self._returned, self._moved)

    def dispatch(self, now: float, loading: bool) -> None:
        """Hand out everything that is due; `loading`: one poll of tasks at most, and not right after the last."""
        self.workers.check()
        if not loading or now >= self._not_before:
            with self._lock:
                zones = self._beats.due(now, 1 if loading else None)
                work = loading and any(self._beats.watches(zone) for zone in zones)
            if work:
                self._not_before = now + LOADING_GAP
            for zone in zones:
                self.workers.submit(zone, self._poll)
        if self.expiring:
            return
        with self._lock:
            tasks = self._live.expired(self._clock.now(), EXPIRED_AT_ONCE)
        if tasks:
            self.expiring = True
            self._expirer.submit(lambda: self._expire(tasks))

    def next_due(self, loading: bool) -> float:
        """Monotonic time at which `dispatch` has something to do besides expiries."""
        with self._lock:
            poll = self._beats.next_due()
        return min(max(poll, self._not_before) if loading else poll, self.workers.next_check() or NEVER)

    def next_deadline(self) -> float:
        """Wall time of the next expiry."""
        if self.expiring:
            return NEVER
        with self._lock:
            deadline = self._live.next_deadline()
        return NEVER if deadline is None else deadline

    def close(self) -> None:
        """Nothing that is under way may write any more; nobody waits for it."""
        self._closing = True
        with self._lock:
            self._beats.invalidate()
        self.workers.close()
        self._expirer.close(timeout=0)

    # ---- on their threads

    def _poll(self, job: Job) -> None:
        with self._lock:
            token = self._beats.start(job.zone, self._clock.monotonic(), self._clock.now())
        if token is None or self._closing:
            return
        beat = LocalBeat(job.zone, token, job, self._give_way)
        try:
            outcome = self._handlers.poll(beat)
        except BaseException:
            with self._lock:
                seconds = self._beats.failed(job.zone, token, self._clock.monotonic())
            log.exception("zone %s: the poll raised; polled again in %s s", job.zone, seconds, extra={"zone": job.zone})
            return
        with self._lock:
            self._beats.finish(job.zone, token, outcome, self._clock.monotonic(), beat.waited_for, beat.gave_way_for)

    def _expire(self, tasks: Sequence[Task]) -> None:
        try:
            self._handlers.expire(tasks)
        except Exception:
            log.exception("cannot expire %d tasks; again later", len(tasks))
        finally:
            self.expiring = False
            self._stir(-NEVER)

    def _moved(self, ended: bool) -> None:
        due = NEVER
        if ended:
            with self._lock:
                due = self._beats.next_due()
        self._stir(due)

    def _stranded(self, zone: str) -> None:
        with self._lock:
            self._beats.strand(zone, self._clock.monotonic())

    def _returned(self, zone: str) -> None:
        with self._lock:
            self._beats.release(zone)
