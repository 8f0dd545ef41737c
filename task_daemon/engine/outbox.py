"""Which delivery goes out when. Pure scheduling: wall times come in as numbers, nothing is sent, stored or awaited here.

Deliveries of one task form a *line*: strictly one after the other by (task_seq, part). Lines wait in the *lane* of their
target; a lane sends a few at a time, and one whose target is down is held and probed. Memory holds the first lines of each
lane; the rest stays in the store and is read as room appears. A line is wholly in memory or wholly in the store.

An answer frees the place in the lane at once (`answered`); the line goes on only when the outcome is on disk (`settle`). So
a receiver never waits for our disk, and after a crash nothing is repeated behind something later of the same task.

A wall clock that is set back prolongs no wait: what is in memory moves with it (`set_back`), and what comes from the store
waits no longer than it was meant to when it was written (`due`). One that is set forward makes everything due, once.
"""

import bisect
import heapq
import math
from collections.abc import Sequence

from msgspec.structs import replace

from task_daemon.core.model import Attempt, Delivery, DeliveryState
from task_daemon.core.ports import Delivered, Later, Outcome, Refused

CAPACITY = 10_000  # deliveries held in memory, about
LANE_MINIMUM = 8  # lines each lane may hold, however many lanes there are
DOWN_AFTER = 5  # outcomes in a row
PROBE_EVERY = 30.0  # seconds
WAKE_EVERY = 1.0  # seconds, for each owner
READ_AGAIN = 300.0  # seconds; due times in the store may be from before the wall clock was set, so they are not waited out
TRIES_KEPT = 20
UNSETTLED = 512  # answered, and not on disk yet; with more of them nothing is sent, for after a crash they are sent again
NEVER = math.inf


def judged(delivery: Delivery, outcome: Outcome, now: float) -> Delivery:
    """The delivery after an attempt."""
    tries = (*delivery.tries, outcome.attempt)[-TRIES_KEPT:]
    attempts = delivery.attempts + 1
    match outcome:
        case Delivered():
            return replace(delivery, state=DeliveryState.DELIVERED, attempts=attempts, tries=tries)
        case Later(seconds=seconds):
            return replace(delivery, attempts=attempts, tries=tries, next_at=now + seconds)
        case Refused():
            return replace(delivery, state=DeliveryState.DEAD, attempts=attempts, tries=tries)


def held_back(delivery: Delivery, behind: str, now: float) -> Delivery:
    """A later part of a group whose earlier part will never be accepted."""
    attempt = Attempt(at=now, error=f"held back behind delivery {behind}, which was not accepted")
    return replace(delivery, state=DeliveryState.DEAD, tries=(*delivery.tries, attempt)[-TRIES_KEPT:])


def revived(group: Sequence[Delivery], delivery_id: str, now: float) -> list[Delivery]:
    """The delivery and the dead later parts of its group, from the start of the schedule. `group`: in order."""
    first = next(row for row in group if row.id == delivery_id)
    again = [first] + [row for row in group if row.part > first.part and row.state is DeliveryState.DEAD]
    return [replace(row, state=DeliveryState.PENDING, attempts=0, next_at=now) for row in again]


def due(delivery: Delivery, now: float) -> float:
    """When a stored delivery goes out (wall time): as planned after its last attempt, or at once without any, whatever the
    wall clock has done since."""
    planned = delivery.next_at - delivery.tries[-1].at if delivery.attempts and delivery.tries else 0.0
    return min(delivery.next_at, now + max(0.0, planned))


def _place(row: Delivery) -> tuple[int, int]:
    return row.task_seq, row.part


class _Line:
    __slots__ = ("busy", "lane", "owner", "rows", "ticket")

    def __init__(self, lane: "_Lane", owner: int) -> None:
        self.lane = lane  # where it is counted: that of the delivery being sent, or of the first
        self.owner = owner
        self.rows: list[Delivery] = []
        self.busy: Delivery | None = None  # being sent
        self.ticket = 0  # of its entry in the lane's heap

    def put(self, row: Delivery) -> None:
        if not self.rows:
            self.rows.append(row)
            return
        at = bisect.bisect_left(self.rows, _place(row), key=_place)
        if at < len(self.rows) and self.rows[at].id == row.id:
            self.rows[at] = row
        else:
            self.rows.insert(at, row)

    def remove(self, delivery_id: str) -> None:
        if len(self.rows) == 1 and self.rows[0].id == delivery_id:
            self.rows.clear()
        else:
            self.rows = [row for row in self.rows if row.id != delivery_id]


class _Lane:
    def __init__(self, target: str) -> None:
        self.target = target
        self.heap: list[tuple[float, int, str]] = []  # (next_at, ticket, uid)
        self.lines = 0
        self.in_flight = 0
        self.unsettled = 0
        self.downs = 0  # outcomes in a row that say the target is down
        self.probe_at = -NEVER
        self.horizon = NEVER  # wall time before which none of the lines that are only in the store is due
        self.filling = False
        self.missed = NEVER  # earliest due time of what was left in the store while filling
        self.touched: set[str] = set()  # lines that changed while filling
        self.planned = NEVER

    @property
    def held(self) -> bool:
        return self.downs >= DOWN_AFTER


class Outbox:
    """All pending deliveries, as far as they are in memory. Event loop only."""

    def __init__(self, per_target: int = 4, concurrency: int = 32, capacity: int = CAPACITY) -> None:
        self._per_target = per_target
        self._concurrency = concurrency
        self._capacity = capacity
        self._lines: dict[str, _Line] = {}
        self._lanes: dict[str, _Lane] = {}
        self._owners: dict[int, set[str]] = {}
        self._woken: dict[int, float] = {}
        self._plan: list[tuple[float, str]] = []  # heap; an entry counts only while it is the lane's `planned`
        self._tickets = 0
        self._more: set[str] = set()  # targets with lines that are only in the store
        self.hungry: set[str] = set()  # targets whose lane is to be read from the store
        self.in_flight = 0
        self.unsettled = 0

    # ---- what comes in

    def discover(self, targets: Sequence[str]) -> None:
        """The store has pending deliveries for these targets."""
        for target in targets:
            lane = self._lane(target)
            self._more.add(target)
            lane.horizon = -NEVER
            self._replan(lane)

    def add(self, rows: Sequence[Delivery], now: float) -> None:
        """Pending deliveries that are on disk."""
        crowded, room = bool(self._more), self._room()
        for stored in rows:
            at = due(stored, now)
            row = stored if at == stored.next_at else replace(stored, next_at=at)
            lane = self._lane(row.target)
            if row.uid not in self._lines and (crowded or lane.lines >= room):
                crowded = True
                self._more.add(row.target)
                lane.horizon = min(lane.horizon, row.next_at)
                lane.missed = min(lane.missed, row.next_at)
                self._replan(lane)
                continue
            self._put(row)

    def fill(self, target: str, rows: Sequence[Delivery], horizon: float, now: float) -> None:
        """What the store had for a hungry target: the first of its lines, whole. `horizon`: wall time before which none of
        its other lines is due; infinity if there are no others."""
        lane = self._lane(target)
        if horizon < NEVER:
            self._evict(lane, {row.uid for row in rows})
        lane.filling = False
        lane.horizon = min(lane.missed, horizon if horizon == NEVER else min(horizon, now + READ_AGAIN))
        if lane.horizon == NEVER:
            self._more.discard(target)
        for row in rows:
            if row.uid not in lane.touched:
                self._put(replace(row, next_at=min(due(row, now), self._due_in_memory(row))))
        self._replan(lane)

    def room(self, target: str) -> int:
        """How many lines to read for a hungry target; from here on it counts as being filled."""
        lane = self._lane(target)
        self.hungry.discard(target)
        lane.filling, lane.missed, lane.touched = True, NEVER, set()
        self._replan(lane)
        return self._room() + lane.in_flight + lane.unsettled

    def unfilled(self, target: str, now: float) -> None:
        """Reading failed: try again a second later."""
        lane = self._lane(target)
        lane.filling, lane.horizon = False, now + 1.0
        self._replan(lane)

    # ---- what goes out

    def next_due(self) -> float:
        """Wall time of the next delivery (or the next reading of the store); infinity if there is none."""
        while self._plan and self._stale(self._plan[0]):
            heapq.heappop(self._plan)
        busy = self.in_flight >= self._concurrency or self.unsettled >= UNSETTLED
        return self._plan[0][0] if self._plan and not busy else NEVER

    def take(self, now: float) -> list[Delivery]:
        """Deliveries to send now; each is in flight until `answered`. Lanes that run dry are added to `hungry`."""
        found: list[Delivery] = []
        while self.next_due() <= now:
            lane = self._lanes[heapq.heappop(self._plan)[1]]
            lane.planned = NEVER
            row = self._take_from(lane, now)
            if row is not None:
                found.append(row)
            elif lane.target in self._more and not lane.filling and lane.horizon <= now:
                self.hungry.add(lane.target)
                continue
            self._replan(lane)
        return found

    def judge(self, row: Delivery, outcome: Outcome, now: float) -> list[Delivery]:
        """The versions to put on disk: of the delivery and, if it is dead, of the later parts of its group."""
        after = judged(row, outcome, now)
        if after.state is not DeliveryState.DEAD:
            return [after]
        line = self._lines.get(row.uid)
        later = [other for other in line.rows if other.task_seq == row.task_seq and other.part > row.part] if line else []
        return [after, *(held_back(other, row.id, now) for other in later)]

    def answered(self, row: Delivery, outcome: Outcome, now: float) -> None:
        """A delivery is not in flight any more: another of its lane may go; its line waits for `settle`."""
        lane = self._lane(row.target)
        lane.in_flight -= 1
        self.in_flight -= 1
        lane.unsettled += 1
        self.unsettled += 1
        if isinstance(outcome, Later) and outcome.target_down:
            lane.downs += 1
            if lane.held:
                lane.probe_at = now + PROBE_EVERY
        else:
            lane.downs = 0
        self._replan(lane)

    def settle(self, row: Delivery, versions: Sequence[Delivery]) -> None:
        """The outcome of an answered delivery is on disk; the next of its line may go."""
        lane = self._lane(row.target)
        lane.unsettled -= 1
        self.unsettled -= 1
        line = self._lines.get(row.uid)
        if line is None:
            self._replan(lane)
            return
        line.busy = None
        for version in versions:
            if version.state is not DeliveryState.PENDING:
                line.remove(version.id)
            elif any(known.id == version.id for known in line.rows):
                line.put(version)
        counted = line.lane
        self._requeue(row.uid, line)
        if counted is not lane:
            self._replan(lane)

    # ---- what people do

    def revive(self, rows: Sequence[Delivery], now: float) -> None:
        """These are pending again. One that is being sent right now keeps its flight's outcome."""
        flying = {line.busy.id for row in rows if (line := self._lines.get(row.uid)) is not None and line.busy is not None}
        self.add([row for row in rows if row.id not in flying], now)

    def remove(self, uid: str, delivery_id: str) -> None:
        """Never send this one (again)."""
        line = self._lines.get(uid)
        if line is None:
            return
        line.remove(delivery_id)
        if line.busy is None:
            self._requeue(uid, line)

    def waits(self, owner_uid: int) -> bool:
        """Whether anything of this owner may be waiting for a retry. O(1): it is asked at each request."""
        return owner_uid in self._owners or bool(self._more)

    def wake(self, owner_uid: int, now: float) -> bool:
        """The owner is alive: what waits for a retry goes now. Whether the store has to be told too."""
        if now - self._woken.get(owner_uid, -NEVER) < WAKE_EVERY:
            return False
        crowded = bool(self._more)
        mine = self._owners.get(owner_uid, ())
        if not mine and not crowded:
            return False
        self._woken = {owner: at for owner, at in self._woken.items() if now - at < WAKE_EVERY}
        self._woken[owner_uid] = now
        for uid in list(mine):
            line = self._lines[uid]
            if line.busy is not None:
                continue
            line.rows = [row if row.next_at <= now else replace(row, next_at=now) for row in line.rows]
            lane = line.lane
            lane.probe_at = min(lane.probe_at, now)
            self._requeue(uid, line)
        return crowded

    def set_back(self, seconds: float) -> None:
        """The wall clock was set back by so much: everything waits as long as it would have waited otherwise."""
        self._plan = []
        self._woken = {owner: at - seconds for owner, at in self._woken.items()}
        for line in self._lines.values():
            line.rows = [replace(row, next_at=row.next_at - seconds) for row in line.rows]
        for lane in list(self._lanes.values()):
            lane.heap = [(at - seconds, ticket, uid) for at, ticket, uid in lane.heap]
            lane.probe_at -= seconds
            lane.horizon -= seconds
            lane.missed -= seconds
            lane.planned = NEVER
            self._replan(lane)

    def counts(self) -> dict[str, int]:
        held = sum(1 for lane in self._lanes.values() if lane.held)
        waiting = sum(len(line.rows) for line in list(self._lines.values()))
        return {"in_memory": waiting, "in_flight": self.in_flight, "targets": len(self._lanes), "held_targets": held}

    def held_targets(self) -> list[str]:
        return [lane.target for lane in self._lanes.values() if lane.held]

    # ---- inside

    def _lane(self, target: str) -> _Lane:
        lane = self._lanes.get(target)
        if lane is None:
            lane = self._lanes[target] = _Lane(target)
        return lane

    def _room(self) -> int:
        return max(LANE_MINIMUM, self._capacity // max(1, len(self._lanes)))

    def _put(self, row: Delivery) -> None:
        line = self._lines.get(row.uid)
        if line is None:
            lane = self._lane(row.target)
            line = self._lines[row.uid] = _Line(lane, row.owner_uid)
            lane.lines += 1
            mine = self._owners.get(row.owner_uid)
            if mine is None:
                mine = self._owners[row.owner_uid] = set()
            mine.add(row.uid)
        line.put(row)
        if line.busy is None and line.rows[0] is row:
            self._requeue(row.uid, line)
        elif line.lane.filling:
            line.lane.touched.add(row.uid)

    def _requeue(self, uid: str, line: _Line) -> None:
        """The line's head may be another one; without rows the line is over."""
        lane = line.lane
        if lane.filling:
            lane.touched.add(uid)
        if not line.rows:
            self._forget(uid, line)
            self._replan(lane)
            return
        head = line.rows[0]
        if head.target != lane.target:
            lane.lines -= 1
            self._replan(lane)
            lane = line.lane = self._lane(head.target)
            lane.lines += 1
        self._tickets += 1
        line.ticket = self._tickets
        heapq.heappush(lane.heap, (head.next_at, line.ticket, uid))
        self._replan(lane)

    def _due_in_memory(self, row: Delivery) -> float:
        """Reading a delivery once more must not make it wait anew."""
        line = self._lines.get(row.uid)
        return min((known.next_at for known in line.rows if known.id == row.id), default=NEVER) if line else NEVER

    def _forget(self, uid: str, line: _Line) -> None:
        del self._lines[uid]
        line.lane.lines -= 1
        mine = self._owners[line.owner]
        mine.discard(uid)
        if not mine:
            del self._owners[line.owner]

    def _evict(self, lane: _Lane, keep: set[str]) -> None:
        """Lines that are not among the first of their lane go back to the store."""
        for _, ticket, uid in lane.heap:
            line = self._lines.get(uid)
            if line is None or line.ticket != ticket or line.busy is not None or uid in keep or uid in lane.touched:
                continue
            self._forget(uid, line)

    def _top(self, lane: _Lane) -> float:
        """When the lane's first line is due; entries that are out of date are dropped."""
        while lane.heap:
            due, ticket, uid = lane.heap[0]
            line = self._lines.get(uid)
            if line is not None and line.ticket == ticket and line.busy is None:
                return due
            heapq.heappop(lane.heap)
        return NEVER

    def _take_from(self, lane: _Lane, now: float) -> Delivery | None:
        if self._top(lane) > now:
            return None
        line = self._lines[heapq.heappop(lane.heap)[2]]
        row = line.busy = line.rows[0]
        lane.in_flight += 1
        self.in_flight += 1
        if lane.held:
            lane.probe_at = now + PROBE_EVERY
        return row

    def _stale(self, entry: tuple[float, str]) -> bool:
        lane = self._lanes.get(entry[1])
        return lane is None or lane.planned != entry[0]

    def _replan(self, lane: _Lane) -> None:
        unread = lane.target in self._more and not lane.filling
        if lane.in_flight >= (1 if lane.held else self._per_target):
            when = NEVER
        else:
            when = self._top(lane)
            if unread and lane.target not in self.hungry:
                when = min(when, lane.horizon)
            if lane.held:
                when = max(when, lane.probe_at)
        if when != lane.planned:
            lane.planned = when
            if when < NEVER:
                heapq.heappush(self._plan, (when, lane.target))
        if lane.lines or lane.in_flight or lane.unsettled or unread or lane.filling:
            return
        if self._lanes.get(lane.target) is lane:
            del self._lanes[lane.target]
