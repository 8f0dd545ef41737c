"""What is written, in SQL: each method is one operation inside a transaction that the store begins and commits; `add_new` and
`add_at_once` are a transaction of their own if there is none.

An operation that is refused (Conflict, a key used for another body) is refused before it wrote anything, so it spoils no
other one of the same commit. Used by whoever commits.
"""

import sqlite3
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from task_daemon.core import transitions
from task_daemon.core.errors import Conflict, IdempotencyKeyReused, NotFound
from task_daemon.core.model import Change, Delivery, DeliveryState, Event, Task, differing
from task_daemon.core.ports import Added, NewTask
from task_daemon.engine.live import after
from task_daemon.engine.local.rows import (
    CHUNKS,
    SQL,
    Row,
    delivery_changed_row,
    delivery_of,
    delivery_row,
    ended_row,
    event_row,
    many,
    moved_row,
    task_of,
    task_row,
)
from task_daemon.engine.outbox import revived
from task_daemon.engine.packing import Version

Current = Callable[[str], Task | None]  # the newest version in memory
Shown = Callable[[str], Task | Version | None]  # as much of it as says which version it is
Stored = tuple[list[Added], list[Event]]


class Applied:
    """What became of one change: the version that was stored, its events with their sequence, its deliveries."""

    __slots__ = ("deliveries", "events", "task")

    def __init__(self, task: Task, events: Sequence[Event], deliveries: Sequence[Delivery]) -> None:
        self.task = task
        self.events = events
        self.deliveries = deliveries


class Tables:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._sql = connection
        self.seq = 0
        self.reread()

    def reread(self) -> None:
        """After a rollback the last numbers are what the disk says."""
        (self.seq,) = self._sql.execute(SQL["last_seq"]).fetchone()
        (self._other_keys,) = self._sql.execute(SQL["other_keys"]).fetchone()
        (self._deliveries,) = self._sql.execute(SQL["last_delivery"]).fetchone()

    def add(self, new: Sequence[NewTask], current: Current) -> Stored:
        """One registration. Raises Conflict, IdempotencyKeyReused."""
        events = self.add_at_once(new)
        return self._add_looking(new, current) if events is None else ([Added(item.task) for item in new], events)

    def add_new(self, parts: Sequence[Sequence[NewTask]]) -> list[Stored] | None:
        """Several registrations of which none is a replay, without looking first; None, and nothing stored, if one is."""
        new = [item for part in parts for item in part]
        events = self.add_at_once(new)
        if events is None:
            return None
        if len(parts) == 1:
            return [([Added(item.task) for item in new], events)]
        left = iter(events)
        return [([Added(item.task) for item in part], [next(left) for _ in part]) for part in parts]

    def add_at_once(self, new: Sequence[NewTask]) -> list[Event] | None:
        """`add_new` for one part; the events of the registrations."""
        if self._other_keys and any(item.key is not None and self._key(item.task.owner.uid, item.key) for item in new):
            return None
        whole = len(new) in CHUNKS  # a single statement, which does all or nothing by itself
        inside = self._sql.in_transaction
        if not whole:
            self._sql.execute("SAVEPOINT new")
        try:
            events = self._insert(new)
        except sqlite3.IntegrityError:  # live work of the same name, or a key that is known; two of them may be alike, too
            if not whole and inside:
                self._sql.execute("ROLLBACK TO new")
                self._sql.execute("RELEASE new")
            elif not whole:
                self._sql.execute("ROLLBACK")
            self.reread()
            return None
        if not whole:
            self._sql.execute("RELEASE new")
        return events

    def _insert(self, new: Sequence[NewTask]) -> list[Event]:
        events = [transitions.registered(item.task, seq) for seq, item in enumerate(new, self.seq + 1)]
        self.seq += len(new)
        many(self._sql, "add_task", [task_row(event.seq, item) for event, item in zip(events, new, strict=True)])
        return events

    def _add_looking(self, new: Sequence[NewTask], current: Current) -> Stored:
        answers = self._decide(new, current)
        events = self._insert([item for item, answer in zip(new, answers, strict=True) if answer is None])
        for item, answer in zip(new, answers, strict=True):
            owner = item.task.owner.uid
            if answer is not None and item.key is not None and self._key(owner, item.key) is None:
                self._sql.execute(SQL["add_key"], (owner, item.key, item.fingerprint, answer.task.uid))
                self._other_keys = True
        return [answer or Added(item.task) for item, answer in zip(new, answers, strict=True)], events

    def known(self, new: Sequence[NewTask], current: Current) -> int:
        """How many of them are replays."""
        return sum(answer is not None for answer in self._decide(new, current))

    def apply(self, changes: Sequence[Change], shown: Shown) -> list[Applied | None]:
        """None where the task was not as `before` any more."""
        if len(changes) == 1:
            return [self._apply(changes[0], shown)]
        self._sql.execute("SAVEPOINT changes")
        applied = self._apply_all(changes, shown)
        if applied is None:
            self._sql.execute("ROLLBACK TO changes")
            self.reread()
        self._sql.execute("RELEASE changes")
        return [self._apply(change, shown) for change in changes] if applied is None else list(applied)

    def save(self, rows: Sequence[Row]) -> None:
        """Progress that was only in memory (`saved_row`); a version that is on disk already stays."""
        many(self._sql, "save_task", rows)

    def record(self, rows: Sequence[Delivery]) -> None:
        """Outcomes of deliveries; those that are not pending any more (acknowledged meanwhile) stay as they are."""
        many(self._sql, "record", [delivery_changed_row(row) for row in rows])

    def redeliver(self, delivery_id: str, now: float) -> list[Delivery]:
        wanted = self._delivery(delivery_id)
        group = [delivery_of(row) for row in self._sql.execute(SQL["group"], (wanted.uid, wanted.task_seq))]
        again = revived(group, delivery_id, now)
        self._sql.executemany(SQL["change_delivery"], [delivery_changed_row(row) for row in again])
        return again

    def acknowledge(self, delivery_id: str) -> Delivery:
        read = replace(self._delivery(delivery_id), state=DeliveryState.ACKED)
        self._sql.execute(SQL["change_delivery"], delivery_changed_row(read))
        return read

    def wake(self, owner_uid: int, now: float) -> list[str]:
        """Make an owner's waiting deliveries due, up to 1,000; answers their targets."""
        rows = [delivery_of(row) for row in self._sql.execute(SQL["owner_waiting"], (owner_uid, now))]
        many(self._sql, "record", [delivery_changed_row(replace(row, next_at=now)) for row in rows])
        return sorted({row.target for row in rows})

    def pause(self, zone: str, paused: bool) -> None:
        self._sql.execute(SQL["pause" if paused else "resume"], (zone,))

    def purge(self, finished_before: float, keep: int, limit: int) -> list[str]:
        """Remove finished tasks with their history; answers their uids."""
        found: dict[int, str] = dict(self._sql.execute(SQL["old"], (finished_before, limit)).fetchall())
        last = self._sql.execute(SQL["newest_beyond"], (keep,)).fetchone() if len(found) < limit else None
        if last is not None:
            found |= dict(self._sql.execute(SQL["beyond"], (*last, limit)).fetchall())
            found = dict(list(found.items())[:limit])
        numbers = [(n,) for n in found]
        horizon = int(self.meta("horizon") or 0)
        for number in numbers:
            horizon = max(horizon, self._sql.execute(SQL["last_event_of"], number).fetchone()[0] or 0)
        for name in ("purge_task", "purge_progress", "purge_events", "purge_payloads", "purge_deliveries"):
            self._sql.executemany(SQL[name], numbers)
        self._sql.executemany(SQL["purge_keys"], [(uid,) for uid in found.values()])
        if found:
            self.set_meta("horizon", str(horizon))
        return list(found.values())

    def meta(self, name: str) -> str | None:
        row = self._sql.execute(SQL["meta"], (name,)).fetchone()
        return None if row is None else str(row[0])

    def set_meta(self, name: str, value: str) -> None:
        self._sql.execute(SQL["set_meta"], (name, value))

    def _decide(self, new: Sequence[NewTask], current: Current) -> list[Added | None]:
        """By task: the one that is there already, or None for one to store. Reads only."""
        answers: list[Added | None] = []
        triples: dict[tuple[str, str, str], Task] = {}
        keys: dict[tuple[int, str], tuple[str, Task]] = {}
        for index, item in enumerate(new):
            task = item.task
            found = self._by_key(item, keys, current, index)
            triple = (task.zone, task.action, task.id)
            if found is None:
                found = triples.get(triple) or self._live(triple)
                if found is not None:
                    _refuse_other_members(found, task, index)
            if found is None:
                triples[triple] = task
                answers.append(None)
            else:
                answers.append(Added(current(found.uid) or found, replayed=True))
            if item.key is not None:
                keys.setdefault((task.owner.uid, item.key), (item.fingerprint, found or task))
        return answers

    def _by_key(self, item: NewTask, keys: dict[tuple[int, str], tuple[str, Task]], current: Current, index: int) -> Task | None:
        if item.key is None:
            return None
        owner = item.task.owner.uid
        known = keys.get((owner, item.key))
        if known is None:
            row = self._key(owner, item.key)
            if row is None:
                return None
            stored = current(row[1]) or self._task(row[1])
            if stored is None:
                return None
            known = (row[0], stored)
        if known[0] != item.fingerprint:
            raise IdempotencyKeyReused(
                f"cannot register {item.task.id!r}: the idempotency key {item.key!r} was used for another body; "
                "send the same body again or use a new key",
                extra={"index": index},
            )
        return known[1]

    def _key(self, owner: int, key: str) -> tuple[str, str] | None:
        row: tuple[str, str] | None = self._sql.execute(SQL["key"], (owner, key)).fetchone()
        return row

    def _live(self, triple: tuple[str, str, str]) -> Task | None:
        zone, action, name = triple
        row = self._sql.execute(SQL["live"], (name, zone, action)).fetchone()
        return None if row is None else task_of(*row)

    def _task(self, uid: str) -> Task | None:
        row = self._sql.execute(SQL["task"], (uid,)).fetchone()
        return None if row is None else task_of(*row)

    def _delivery(self, delivery_id: str) -> Delivery:
        row = self._sql.execute(SQL["delivery"], (delivery_id,)).fetchone()
        if row is None:
            raise NotFound(f"cannot find callback {delivery_id}: there is none with this id, or its task was removed")
        return delivery_of(row)

    def _numbered(self, event: Event) -> Event:
        self.seq += 1
        return replace(event, seq=self.seq)

    def _apply(self, change: Change, shown: Shown) -> Applied | None:
        applied = self._apply_all([change], shown)
        return None if applied is None else applied[0]

    def _apply_all(self, changes: Sequence[Change], shown: Shown) -> list[Applied] | None:
        """None, and something of it written, if one of the tasks was not as `before` any more; of a single one nothing is."""
        tasks = [after(change.task, shown(change.task.uid)) for change in changes]
        both = list(zip(changes, tasks, strict=True))
        moved = [moved_row(task, change.before.task_seq) for change, task in both if not task.done]
        ended = [ended_row(task, change.before.task_seq) for change, task in both if task.done]
        if many(self._sql, "move_task", moved) < len(moved) or many(self._sql, "end_task", ended) < len(ended):
            return None
        applied = [self._applied(change, task) for change, task in both]
        many(self._sql, "add_event", [event_row(event) for one in applied for event in one.events])
        deliveries = list(enumerate((row for one in applied for row in one.deliveries), self._deliveries + 1))
        self._deliveries += len(deliveries)
        many(self._sql, "add_delivery", [delivery_row(n, row) for n, row in deliveries])
        many(self._sql, "add_payload", [(n, row.body) for n, row in deliveries])
        return applied

    def _applied(self, change: Change, task: Task) -> Applied:
        events = [self._numbered(event) for event in change.events]
        seqs = {event.task_seq: event.seq for event in events}
        return Applied(task, events, [replace(row, seq=seqs.get(row.task_seq, row.seq)) for row in change.deliveries])


def _refuse_other_members(old: Task, new: Task, index: int) -> None:
    names = differing(old, new)
    if names:
        raise Conflict(
            f"cannot register {new.id!r} ({new.action} in zone {new.zone}): it is being watched as task {old.uid} with other "
            f"members: {', '.join(names)}; send the same members, or wait until that task has ended",
            members=[(f"/{name}", "differs from the task that is being watched") for name in names],
            extra={"index": index, "uid": old.uid},
        )
