"""What is counted while working, in plain numbers; `GET /metrics` reads them when somebody asks.

Any thread may count. An addition that two threads make at one instant may be lost on a Python without a global lock; nothing
but a graph depends on it.
"""

from bisect import bisect_left
from collections import Counter

FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Bounds (seconds) for what is done here: commits, the event loop, a poll that begins."""
SLOW = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""For what somebody else does: answers of backends and receivers."""
LONG = (0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
"""For what waits for others: the end of work to be seen, a callback to be accepted."""


class Durations:
    """Seconds, counted in buckets up to each of `bounds` and one beyond."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds


class Measures:
    """One for a daemon; whoever works holds it and adds to it."""

    def __init__(self) -> None:
        self.events: Counter[str] = Counter()  # by type
        self.ended: Counter[tuple[str, str, str]] = Counter()  # tasks, by zone, action and state
        self.polls: Counter[tuple[str, str]] = Counter()  # by zone and outcome: answered, unreachable, raised
        self.poll: dict[str, Durations] = {}  # a whole poll, by the zone's backend
        self.late = Durations(FAST)  # from when a poll was due to its beginning on a worker
        self.detection = Durations(LONG)  # from when the backend ended the work, at the earliest, to the end on disk
        self.commit = Durations(FAST)
        self.operations = 0  # writes in those commits
        self.attempts: Counter[tuple[str, str]] = Counter()  # of callbacks, by via and outcome: delivered, later, refused
        self.attempt = Durations(SLOW)  # one attempt
        self.told = Durations(LONG)  # from the event to the acceptance by the receiver
        self.lag = Durations(FAST)  # of the event loop
        self.requests: Counter[int] = Counter()  # by status

    def polled(self, zone: str, backend: str, outcome: str, seconds: float) -> None:
        self.polls[zone, outcome] += 1
        found = self.poll.get(backend)
        if found is None:
            found = self.poll[backend] = Durations(SLOW)
        found.add(seconds)
