"""The threads backends are called on: a fixed number that a hung backend cannot use up (F5, F6).

A job that gives no sign of life for longer than its zone's limit is stuck: its thread is left to itself and replaced at once.
Whatever still comes from it is reported as `returned`; no zone is ever on two threads, which its owner (the plan of the beats)
guarantees by not submitting a zone that is running or stuck.
"""

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue

from task_daemon.core.ports import Clock

log = logging.getLogger("task_daemon.engine")


class Job:
    """One poll of one zone on a worker thread. Times are monotonic."""

    __slots__ = ("_clock", "alive_at", "run", "stuck", "zone")

    def __init__(self, zone: str, run: Callable[["Job"], None], clock: Clock) -> None:
        self.zone = zone
        self.run = run
        self.stuck = False
        self._clock = clock
        self.alive_at = 0.0

    def touch(self) -> None:
        self.alive_at = self._clock.monotonic()


class Workers:
    """`count` daemon threads. `stuck_after(zone)`: seconds without a sign of life.

    `moved`: called, on its thread, before (False) and after (True) each job. `stranded(zone)`: when a job is found stuck, before
    it can possibly have come back; `returned(zone)`: on the abandoned thread, when it has.
    """

    def __init__(
        self,
        count: int,
        clock: Clock,
        stuck_after: Callable[[str], float],
        stranded: Callable[[str], None],
        returned: Callable[[str], None],
        moved: Callable[[bool], None],
    ) -> None:
        self.count = count
        self._clock = clock
        self._stuck_after = stuck_after
        self._stranded = stranded
        self._returned = returned
        self._moved = moved
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._waiting: set[Job] = set()
        self._running: set[Job] = set()
        self._stuck: dict[str, float] = {}
        self._lock = threading.Lock()
        self._submitted = 0
        self._names = 0
        for _ in range(count):
            self._spawn()

    def submit(self, zone: str, run: Callable[[Job], None]) -> None:
        job = Job(zone, run, self._clock)
        with self._lock:
            self._submitted += 1
            self._waiting.add(job)
        self._jobs.put(job)

    def check(self) -> list[str]:
        """Zones whose job became stuck since the last look; each has got a new thread. Event loop, no lock held."""
        now = self._clock.monotonic()
        found: list[str] = []
        with self._lock:
            for job in list(self._running):
                if now - job.alive_at >= self._stuck_after(job.zone):
                    job.stuck = True
                    self._running.discard(job)
                    self._stuck[job.zone] = job.alive_at
                    self._stranded(job.zone)
                    found.append(job.zone)
        for zone in found:
            text = "zone %s: a poll gave no sign of life for %g s and was abandoned"
            log.error(text, zone, self._stuck_after(zone), extra={"zone": zone})
            self._spawn()
        return found

    def next_check(self) -> float | None:
        """Monotonic time at which a job could become stuck, also one that waits for a thread and may begin at any moment."""
        with self._lock:
            times = [job.alive_at + self._stuck_after(job.zone) for job in self._running]
            if self._waiting:
                now = self._clock.monotonic()
                times += [now + self._stuck_after(job.zone) for job in self._waiting]
        return min(times, default=None)

    def unfinished(self) -> int:
        """Jobs waiting or running, stuck ones left out."""
        with self._lock:
            return self._submitted - len(self._stuck)

    def busy(self) -> list[str]:
        with self._lock:
            return [job.zone for job in self._running]

    def stuck(self) -> dict[str, float]:
        """By zone: monotonic time of the last sign of life."""
        with self._lock:
            return dict(self._stuck)

    def close(self) -> None:
        """Threads end after what they are doing; nobody waits for them."""
        for _ in range(self.count):
            self._jobs.put(None)

    def _spawn(self) -> None:
        self._names += 1
        threading.Thread(target=self._work, name=f"worker-{self._names}", daemon=True).start()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.touch()
            with self._lock:
                self._waiting.discard(job)
                self._running.add(job)
            self._moved(False)
            try:
                job.run(job)
            except BaseException:
                log.exception("zone %s: a poll raised", job.zone, extra={"zone": job.zone})
            if self._ended(job):
                return

    def _ended(self, job: Job) -> bool:
        """Book the end of a job; whether its thread was replaced meanwhile."""
        with self._lock:
            self._running.discard(job)
            self._submitted -= 1
            if job.stuck:
                del self._stuck[job.zone]
        if job.stuck:
            log.warning("zone %s: the abandoned poll has returned; the zone is polled again", job.zone, extra={"zone": job.zone})
            self._returned(job.zone)
        self._moved(True)
        return job.stuck


class Aside:
    """One daemon thread that runs what it is given, in order."""

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(self, call: Callable[[], None]) -> None:
        self._calls.put(call)

    def close(self, timeout: float | None = None) -> None:
        """End after what was submitted; waits up to `timeout` seconds (None: until then)."""
        self._calls.put(None)
        self._thread.join(timeout)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                call()
            except Exception:
                log.exception("a call on thread %s raised", self._thread.name)
