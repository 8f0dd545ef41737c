"""How each zone is doing, as the polls saw it."""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from task_daemon.core.ports import Clock, Zone
from task_daemon.core.view import rfc3339

ERRORS_KEPT = 5
HANG_MARGIN = 1.0  # seconds beyond the zone's time-out before a poll that is still out counts as hung


class ZoneHealth:
    """One zone's record. Written by the worker thread that polls it, read by anybody."""

    def __init__(self, zone: Zone) -> None:
        self.zone = zone
        self.failures = 0  # polls in a row without an answer
        self.last_poll_at: float | None = None
        self.last_answer_at: float | None = None
        self.latency: float | None = None  # seconds the last good poll took
        self.asked_at: float | None = None  # monotonic; a call into the backend is out since then
        self.polled_at: float | None = None  # monotonic; the last whole poll came through
        self.announced_at: float | None = None  # monotonic; the backend has said that something changed, and was not asked since
        self.errors: deque[tuple[float, str]] = deque(maxlen=ERRORS_KEPT)


class ZoneBook:
    """The records of all zones."""

    def __init__(self, zones: Iterable[Zone], clock: Clock) -> None:
        self._clock = clock
        self._health = {zone.name: ZoneHealth(zone) for zone in zones}

    def __getitem__(self, name: str) -> ZoneHealth:
        return self._health[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._health)

    def asked(self, name: str) -> float:
        """A call into the zone's backend begins; when (monotonic)."""
        health = self._health[name]
        began = health.asked_at = self._clock.monotonic()
        health.last_poll_at = self._clock.now()
        return began

    def answered(self, name: str) -> None:
        health = self._health[name]
        if health.asked_at is not None:
            health.latency = self._clock.monotonic() - health.asked_at
        health.asked_at = None
        health.last_answer_at = self._clock.now()

    def announced(self, name: str) -> None:
        """The backend says that something has changed. Any thread."""
        health = self._health[name]
        if health.announced_at is None:
            health.announced_at = self._clock.monotonic()

    def unseen_since(self, name: str) -> float | None:
        """A look begins: since when (monotonic) what it will see may have been so, if more is known than that looks are regular:
        the backend has announced it, or gave no answer for a while."""
        health = self._health[name]
        since, health.announced_at = health.announced_at, None
        return health.polled_at if since is None and health.failures else since

    def raised(self, name: str, error: str) -> None:
        """A call into the backend went wrong over one task; says nothing about the zone."""
        health = self._health[name]
        health.asked_at = None
        health.errors.append((self._clock.now(), error))

    def polled(self, name: str) -> int:
        """A whole poll came through; returns how many in a row had not before it. Single answers do not count: a zone may
        take one kind of call and leave the next unanswered."""
        health = self._health[name]
        failures, health.failures = health.failures, 0
        health.polled_at = self._clock.monotonic()
        return failures

    def failed(self, name: str, error: str) -> int:
        """The zone gave no answer; returns how many times in a row."""
        health = self._health[name]
        health.asked_at = None
        health.failures += 1
        health.errors.append((self._clock.now(), error))
        return health.failures

    def hung_for(self, name: str) -> float | None:
        """Seconds that a call into the backend has been out beyond the zone's time-out, if it has."""
        health = self._health[name]
        asked = health.asked_at
        if asked is None:
            return None
        out = self._clock.monotonic() - asked
        return out if out > health.zone.poll_timeout + HANG_MARGIN else None

    def unreachable(self, name: str) -> bool:
        health = self._health.get(name)
        return health is None or health.failures > 0 or self.hung_for(name) is not None

    def view(self, name: str, paused: bool, live: int, next_poll_at: float | None) -> dict[str, Any]:
        """The zone of `GET /v1/zones`."""
        health = self._health[name]
        hung = self.hung_for(name)
        if paused:
            state = "paused"
        elif hung is not None:
            state = "hung"
        elif health.failures:
            state = "unreachable"
        else:
            state = "ok" if health.last_answer_at else "idle"
        last = health.errors[-1] if health.errors else None
        error = None if last is None or not (health.failures or hung) else last[1]
        if hung is not None:
            error = f"no answer for {hung:.0f} s to a call that should take at most {health.zone.poll_timeout:g} s"
        return {
            "zone": name,
            "backend": health.zone.kind,
            "state": state,
            "actions": sorted(health.zone.backend.actions),
            "labels": dict(health.zone.labels),
            "poll_interval": health.zone.poll_interval,
            "poll_timeout": health.zone.poll_timeout,
            "live_tasks": live,
            "last_poll_at": rfc3339(health.last_poll_at),
            "last_answer_at": rfc3339(health.last_answer_at),
            "next_poll_at": rfc3339(next_poll_at),
            "latency_seconds": None if health.latency is None else round(health.latency, 4),
            "breaker": "open" if health.failures > 1 or hung is not None else "closed",
            "failures": health.failures,
            "last_error": error,
            "errors": [{"at": rfc3339(at), "error": text} for at, text in health.errors],
        }
