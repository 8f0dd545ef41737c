"""When which zone is polled. Pure scheduling: times come in as numbers, nothing is read, awaited or locked here.

The tasks of a zone are grouped by interval; a group is due on a fixed grid of monotonic time (lateness does not add up,
and a wall clock that jumps changes nothing). A zone's place on the grid comes from its name, so zones do not beat together.
In a zone whose backend looks at one task after the other, the tasks of one interval are spread over it in slots, so that
none has to wait for all the others; a task's slot comes from its uid.
A poll takes every group that is due, every task that was poked and those that are new (a crowd of them in parts); the zone is
then busy until it is finished.
Polls that were asked for, by new tasks and pokes, come at once in a zone that has nothing to do; after each poll they rest for
a multiple of what it took, so that a stream of them leaves most of the time to whoever asks. The grid does not rest.
"""

import heapq
import math
import zlib
from collections.abc import Sequence
from itertools import chain, islice
from typing import Any

from task_daemon.core.backoff import before_poll
from task_daemon.core.measures import FAST, Durations
from task_daemon.core.ports import Again, Idle, Times

POKE_GAP = 0.05  # seconds between the starts of two polls of one zone that were asked for, not due
REST = 3.0  # times what a poll took of this machine: until the next one that was poked; those have a quarter of it at most
REST_OF_NEW = 30.0  # times: until the next one for new tasks, while others that come by the thousand wait for their answers
REST_OF_BACKEND = 2.0  # times what the backend took to answer, which left this machine to others
LONGEST_REST = 5.0  # seconds; where the interval is long and a poll slow, nobody who asked waits for longer than this
NEW_AT_ONCE = 1000  # new tasks in one poll that is not due for them: so that it does not take long
NEVER = math.inf
SLOT = 0.1  # seconds between two slots of a zone whose tasks are spread
MOST_SLOTS = 1000  # of one interval

WAITING, QUEUED, RUNNING, STUCK = "waiting", "queued", "running", "stuck"


Place = tuple[float, int]  # interval in seconds, slot


class _Group:
    """The tasks of a zone with one interval and slot."""

    __slots__ = ("due", "last", "uids")

    def __init__(self, due: float) -> None:
        self.uids: dict[str, None] = {}  # in the order they came, which is that of their rows on disk
        self.due = due
        self.last: float | None = None  # wall time of the last poll


class _Zone:
    def __init__(self, name: str, interval: float, spread: bool) -> None:
        self.name = name
        self.interval = interval
        self.spread = spread
        self.phase = zlib.crc32(name.encode()) / 2**32
        self.groups: dict[Place, _Group] = {}
        self.due: list[tuple[float, Place]] = []  # heap, one entry for each group not being polled
        self.fresh: dict[str, None] = {}  # never polled, in the order they came
        self.poked: dict[str, None] = {}
        self.whole = False  # all groups were poked
        self.not_before = 0.0
        self.last_start = -NEVER
        self.ended = -NEVER  # the last poll
        self.worked = 0.0  # seconds that the last poll took of this machine
        self.waited = 0.0  # seconds that it took the backend
        self.last_polled: float | None = None  # wall
        self.token = 0
        self.failures = 0
        self.state = WAITING
        self.paused = False
        self.idle = False
        self.planned = NEVER
        self.due_at = 0.0  # the poll that is queued was due then
        self.taken: list[Place] = []  # of the groups being polled
        self.taken_soon: dict[str, None] = {}
        self.since: float | None = None  # wall time the poll under way started

    def place(self, uid: str, interval: float | None) -> Place:
        every = interval or self.interval
        if not self.spread:
            return every, 0
        return every, zlib.crc32(uid.encode()) % _slots(every)

    def grid(self, place: Place, after: float) -> float:
        """The first point of the grid later than `after`."""
        interval, slot = place
        phase = self.phase * interval + (slot * interval / _slots(interval) if slot else 0.0)
        point = phase + (math.floor((after - phase) / interval) + 1) * interval
        return point if point > after + interval * 1e-6 else point + interval

    def next(self) -> float:
        if self.state is not WAITING or self.paused:
            return NEVER
        due = self.due[0][0] if self.due and not self.idle else NEVER
        if self.fresh or self.poked or self.whole:
            due = min(due, self.soon())
        return max(due, self.not_before)

    def soon(self) -> float:
        """When a poll that is asked for may begin."""
        return self.soon_after(self.ended, self.worked, self.waited)

    def soon_after(self, ended: float, worked: float, waited: float) -> float:
        """The same for a last poll that took so many seconds of this machine and of the backend."""
        rest = (REST if self.poked or self.whole else REST_OF_NEW) * worked + REST_OF_BACKEND * waited
        return max(self.last_start + POKE_GAP, ended + min(rest, LONGEST_REST))

    def wait(self, place: Place, soon: bool, now: float) -> float:
        """Seconds until a task is polled; not `soon`: its turn before the grid's is not known."""
        group = self.groups.get(place)
        due = self.grid(place, now) if group is None else self.grid(place, self.last_start) if place in self.taken else group.due
        if soon:
            running = self.state is RUNNING  # then at the earliest: the backend may have taken all of it
            due = min(due, self.soon_after(now, 0.0, now - self.last_start) if running else self.soon())
        return max(0.0, max(due, self.not_before) - now)

    def take_fresh(self) -> list[str]:
        """New tasks for the poll that begins, besides those that it looks at anyway; of a crowd those that came first."""
        for place in self.taken:
            for uid in self.fresh.keys() & self.groups[place].uids.keys():
                del self.fresh[uid]
        new = list(islice(self.fresh, NEW_AT_ONCE))
        for uid in new:
            del self.fresh[uid]
        if not self.fresh:
            self.fresh = {}  # the old one keeps the room of all that were in it
        return new


def _slots(interval: float) -> int:
    return max(1, min(MOST_SLOTS, round(interval / SLOT)))


class Beats:
    """The plan of all zones. Not thread-safe: the engine holds its lock around every call."""

    def __init__(self, late: Durations | None = None) -> None:
        self._late = late or Durations(FAST)  # how long after they were due polls have begun
        self._zones: dict[str, _Zone] = {}
        self._plan: list[tuple[float, str]] = []  # heap; an entry counts only while it is the zone's `planned`

    def __contains__(self, zone: str) -> bool:
        return zone in self._zones

    def watches(self, zone: str) -> bool:
        """Whether the zone has tasks to poll."""
        return any(group.uids for group in self._zones[zone].groups.values())

    def configure(self, name: str, interval: float, now: float, spread: bool = False) -> None:
        """Make a zone known; its first poll is due at once. `spread`: its tasks are polled one after the other."""
        zone = self._zones[name] = _Zone(name, interval, spread)
        zone.groups[interval, 0] = _Group(now)
        zone.due.append((now, (interval, 0)))
        self._replan(zone)

    def add(self, zone_name: str, uid: str, interval: float | None, now: float) -> None:
        """A task to poll, at `interval` or the zone's; for the first time soon."""
        self.add_all(zone_name, (uid,), interval, now)

    def add_all(self, zone_name: str, uids: Sequence[str], interval: float | None, now: float) -> None:
        """As `add`, for tasks of one zone and interval."""
        zone = self._zones.get(zone_name)
        if zone is None:
            return
        first = not zone.fresh  # the others cannot make the zone due any sooner
        for some in [[uid] for uid in uids] if zone.spread else [uids]:
            place = zone.place(some[0], interval)
            group = zone.groups.get(place)
            if group is None:
                group = zone.groups[place] = _Group(zone.grid(place, now))
                heapq.heappush(zone.due, (group.due, place))
                first = True
            group.uids.update(dict.fromkeys(some))
        zone.fresh.update(dict.fromkeys(uids))
        if first or zone.idle:
            zone.idle = False
            self._replan(zone)

    def drop(self, zone_name: str, uid: str, interval: float | None) -> None:
        """The task has ended and nothing is left to clean up. An empty group goes when its time comes."""
        zone = self._zones.get(zone_name)
        if zone is None:
            return
        group = zone.groups.get(zone.place(uid, interval))
        if group is not None:
            group.uids.pop(uid, None)
        for soon in (zone.fresh, zone.poked, zone.taken_soon):
            soon.pop(uid, None)

    def poke(self, zone_name: str, uid: str | None = None) -> None:
        """Poll soon: all of the zone, or at least this task. A zone that backs off still waits for the end of that."""
        zone = self._zones.get(zone_name)
        if zone is None:
            return
        if uid is None:
            zone.whole = True
        elif uid not in zone.fresh:
            zone.poked[uid] = None
        zone.idle = False
        self._replan(zone)

    def pause(self, zone_name: str, paused: bool) -> None:
        """Stop or resume polling; a resumed zone is polled at once."""
        zone = self._zones.get(zone_name)
        if zone is None:
            return
        if zone.paused and not paused:
            zone.whole, zone.idle, zone.not_before, zone.ended = True, False, 0.0, -NEVER
        zone.paused = paused
        self._replan(zone)

    def next_due(self) -> float:
        """Monotonic time of the next poll; infinity if there is none."""
        while self._plan and self._zones[self._plan[0][1]].planned != self._plan[0][0]:
            heapq.heappop(self._plan)
        return self._plan[0][0] if self._plan else NEVER

    def due(self, now: float, limit: int | None = None) -> list[str]:
        """Zones whose poll is due, the longest due first; they count as queued from here on. `limit`: at most so many that
        have tasks."""
        found: list[str] = []
        with_tasks = 0
        while self.next_due() <= now:
            zone = self._zones[self._plan[0][1]]
            if limit is not None and self.watches(zone.name):
                if with_tasks == limit:
                    break
                with_tasks += 1
            heapq.heappop(self._plan)
            zone.due_at = zone.planned if zone.due and zone.due[0][0] == zone.planned else now
            zone.state, zone.planned = QUEUED, NEVER
            found.append(zone.name)
        return found

    def start(self, zone_name: str, now: float, wall: float) -> int | None:
        """A poll begins: raises the token and takes what is due. None if the zone was paused while it was queued, or its
        thread was given up before it came this far."""
        zone = self._zones[zone_name]
        if zone.state is not QUEUED:
            return None
        if zone.paused:
            zone.state = WAITING
            return None
        zone.state, zone.last_start, zone.last_polled, zone.since = RUNNING, now, wall, wall
        zone.token += 1
        self._late.add(max(0.0, now - zone.due_at))
        limit = NEVER if zone.whole else now
        while zone.due and zone.due[0][0] <= limit:
            place = heapq.heappop(zone.due)[1]
            group = zone.groups[place]
            if group.uids or place == (zone.interval, 0):
                zone.taken.append(place)
                group.last = wall
            else:
                del zone.groups[place]
        zone.taken_soon = zone.poked | dict.fromkeys(zone.take_fresh())
        zone.poked, zone.whole = {}, False
        return zone.token

    def uids(self, zone_name: str, token: int) -> list[str]:
        """Tasks the poll under way is to look at, each group in the order in which its tasks came: what they have in common
        on disk is then written once for many of them."""
        zone = self._zones.get(zone_name)
        if zone is None or zone.token != token:
            return []
        groups = [zone.groups[place].uids for place in zone.taken]
        if len(groups) == 1 and not zone.taken_soon:
            return list(groups[0])
        return list(dict.fromkeys(chain(*groups, zone.taken_soon)))

    def is_newest(self, zone_name: str, token: int) -> bool:
        zone = self._zones.get(zone_name)
        return zone is not None and zone.token == token

    def finish(
        self, zone_name: str, token: int, outcome: Again | Idle, now: float, waited: float = 0.0, gave_way: float = 0.0
    ) -> None:
        """The poll has ended, of which the backend took `waited` seconds, and others for which it gave way so many. A back-off
        keeps everything it took due."""
        zone = self._zones[zone_name]
        if zone.token != token or zone.state is not RUNNING:
            return
        zone.failures = 0
        zone.ended, zone.worked, zone.waited = now, max(0.0, now - zone.last_start - waited - gave_way), waited
        self._end(zone, outcome, now)

    def failed(self, zone_name: str, token: int, now: float) -> float | None:
        """The poll raised: the zone backs off. Answers for how many seconds, None if the token was old."""
        zone = self._zones[zone_name]
        if zone.token != token or zone.state is not RUNNING:
            return None
        zone.failures += 1
        seconds = before_poll(zone.failures, zone.interval)
        self._end(zone, Again(seconds), now)
        return seconds

    def strand(self, zone_name: str, now: float) -> None:
        """The poll is stuck: nothing it still reports counts, and the zone is not polled until `release`."""
        zone = self._zones[zone_name]
        zone.token += 1
        self._end(zone, Again(0.0), now)
        zone.state = STUCK
        self._replan(zone)

    def release(self, zone_name: str) -> None:
        """The stuck poll has returned."""
        zone = self._zones[zone_name]
        if zone.state is STUCK:
            zone.state, zone.since = WAITING, None
            self._replan(zone)

    def invalidate(self) -> None:
        """No poll under way may write any more (the engine closes)."""
        for zone in self._zones.values():
            zone.token += 1

    def times(self, zone_name: str, uid: str, interval: float | None, created_at: float, now: float, wall: float) -> Times:
        """When a task was polled last and will be polled next, in wall time."""
        zone = self._zones.get(zone_name)
        if zone is None:
            return Times(None, None)
        place = zone.place(uid, interval)
        group = zone.groups.get(place)
        last = group.last if group is not None else None
        if uid in zone.fresh:
            last = None
        elif last is None or last < created_at:
            last = zone.last_polled  # polled apart from its group so far
        if zone.paused or zone.idle or zone.state is STUCK or group is None:
            return Times(last, None)
        soon = uid in zone.poked or zone.whole or (uid in zone.fresh and len(zone.fresh) <= NEW_AT_ONCE)
        return Times(last, wall + zone.wait(place, soon, now))

    def first_poll(self, zone_name: str, uid: str, interval: float | None, among: int, now: float, wall: float) -> float | None:
        """When a task would be polled first if `among` with it were added to the zone now, in wall time."""
        zone = self._zones.get(zone_name)
        if zone is None or zone.paused or zone.state is STUCK:
            return None
        return wall + zone.wait(zone.place(uid, interval), len(zone.fresh) + among <= NEW_AT_ONCE, now)

    def facts(self, now: float, wall: float) -> dict[str, dict[str, Any]]:
        """By zone: what `/v1/zones` shows of the timing."""
        return {
            zone.name: {
                "state": "paused" if zone.paused else zone.state,
                "last_polled_at": zone.last_polled,
                "next_poll_at": None if zone.planned == NEVER else wall + max(0.0, zone.planned - now),
                "polling_since": zone.since,
                "interval": zone.interval,
                "tasks": sum(len(group.uids) for group in zone.groups.values()),
                "failures": zone.failures,
            }
            for zone in self._zones.values()
        }

    def _end(self, zone: _Zone, outcome: Again | Idle, now: float) -> None:
        wait = outcome.seconds if isinstance(outcome, Again) else None
        if wait is not None:
            zone.poked |= zone.taken_soon
            zone.not_before = now + wait
        for place in zone.taken:
            group = zone.groups[place]
            group.due = now + wait if wait is not None else zone.grid(place, zone.last_start)
            heapq.heappush(zone.due, (group.due, place))
        zone.taken, zone.taken_soon = [], {}
        zone.state, zone.since = WAITING, None
        zone.idle = isinstance(outcome, Idle) and not (zone.fresh or zone.poked or zone.whole)
        self._replan(zone)

    def _replan(self, zone: _Zone) -> None:
        when = zone.next()
        if when != zone.planned:
            zone.planned = when
            if when < NEVER:
                heapq.heappush(self._plan, (when, zone.name))
