"""How well a daemon keeps to the points at which it says it will poll.

The times of the grid are what the daemon tells (`next_poll_at`), the calls are what the simulated backend wrote down when it
was called (`log_calls`), so lateness is that of the call itself, behind every queue and thread inside the daemon.
"""

import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from benchmarks.harness.daemon import Connection, Daemon
from benchmarks.harness.filling import zone_name

PAGE = 500
EARLY = 0.005  # seconds; the daemon tells milliseconds
AHEAD = 0.2  # seconds; of what is due sooner, or overdue, the daemon tells "now", which is no point of the grid

Calls = Mapping[str, list[float]]  # by task or zone: wall times, in their order


@dataclass(frozen=True)
class Kept:
    """How many of the polls that were due were made before the next was due, and how late they were, in milliseconds."""

    share: float  # percent
    p50: float
    p99: float
    worst: float


@dataclass(frozen=True)
class Window:
    """A stretch of time in which a daemon was watched: wall times, the CPU it used in seconds, its RSS in bytes."""

    begin: float
    end: float
    cpu: float
    rss: int

    @property
    def cores(self) -> float:
        return self.cpu / (self.end - self.begin)


def watch(daemon: Daemon, seconds: float) -> Window:
    before, begin = daemon.cpu(), time.time()
    time.sleep(seconds)
    return Window(begin, time.time(), daemon.cpu() - before, daemon.peak_rss())


def told_tasks(daemon: Daemon) -> dict[str, float]:
    """By uid of each live task whose turn is not just now: when it will be polled."""
    found: dict[str, float] = {}
    token = ""
    with Connection(daemon.socket) as connection:
        while True:
            page = connection.ask("GET", f"/v1/tasks?done=false&page_size={PAGE}" + (f"&page_token={token}" if token else ""))
            found |= _ahead({task["uid"]: task["next_poll_at"] for task in page["tasks"]})
            token = page["next_page_token"]
            if not token:
                return found


def told_zones(daemon: Daemon) -> dict[str, float]:
    """By simulated zone whose turn is not just now: when it will be polled."""
    zones = daemon.ask("GET", "/v1/zones")["zones"]
    return _ahead({zone["zone"]: zone["next_poll_at"] for zone in zones if zone["backend"] == "simulated"})


def calls_of_tasks(daemon: Daemon, zones: int) -> Calls:
    """After the daemon has ended."""
    found: dict[str, list[float]] = {}
    for _, at, _, uid in _calls(daemon, zones):
        found.setdefault(uid, []).append(at)
    return found


def calls_of_zones(daemon: Daemon, zones: int, tasks: int) -> Calls:
    """After the daemon has ended; calls for all `tasks` of the zone only."""
    found: dict[str, list[float]] = {}
    for zone, at, count, _ in _calls(daemon, zones):
        if count == tasks:
            found.setdefault(zone, []).append(at)
    return found


def kept(told: Mapping[str, float], calls: Calls, interval: float, window: Window) -> Kept:
    late: list[float] = []
    due = 0
    for name, first in told.items():
        times = calls.get(name, [])
        point = first
        while point + interval < window.end:
            if point >= window.begin:
                due += 1
                place = bisect_left(times, point - EARLY)
                if place < len(times) and times[place] < point + interval - EARLY:
                    late.append(max(0.0, times[place] - point))
            point += interval
    if not late:
        raise SystemExit("cannot tell how late polls were: none was seen")
    late.sort()
    p50, p99 = (late[int(len(late) * part)] * 1000 for part in (0.5, 0.99))
    return Kept(share=100 * len(late) / due, p50=p50, p99=p99, worst=late[-1] * 1000)


def _calls(daemon: Daemon, zones: int) -> Iterator[tuple[str, float, int, str]]:
    for number in range(zones):
        name = zone_name(number)
        for line in Path(daemon.workspace, "zones", name, "calls.log").read_text().splitlines():
            at, count, uid = line.split()
            yield name, float(at), int(count), uid


def _ahead(told: Mapping[str, str | None]) -> dict[str, float]:
    times = {name: datetime.fromisoformat(text).timestamp() for name, text in told.items() if text}
    soon = time.time() + AHEAD
    return {name: at for name, at in times.items() if at > soon}
