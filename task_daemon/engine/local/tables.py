"""What is written, in SQL: each method is one operation inside a transaction that the store begins and commits.

An operation that is refused (Conflict, a key used for another body) is refused before it wrote anything, so it spoils no
other one of the same commit. Writer thread only.
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
    SQL,
    Row,
    changed_row,
    delivery_changed_row,
    delivery_of,
    delivery_row,
    event_row,
    task_of,
    task_row,
)
from task_daemon.engine.outbox import revived

Current = Callable[[str], Task | None]  # the newest version in memory


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
        """After a rollback the last sequence is what the disk says."""
        row = self._sql.execute(SQL["last_seq"]).fetchone()
        self.seq = row[0] if row else 0

    def add(self, new: Sequence[NewTask], current: Current) -> tuple[list[Added], list[Event]]:
        answers = self._decide(new, current)
        fresh = [item.task for item, answer in zip(new, answers, strict=True) if answer is None]
        events = [self._numbered(transitions.registered(task)) for task in fresh]
        if fresh:
            self._sql.executemany(SQL["add_task"], [task_row(task) for task in fresh])
            self._sql.executemany(SQL["add_event"], [event_row(event) for event in events])
        known: dict[tuple[int, str], str] = {}
        for item, answer in zip(new, answers, strict=True):
            owner = item.task.owner.uid
            if item.key is None or (owner, item.key) in known or self._key(owner, item.key) is not None:
                continue
            known[owner, item.key] = (answer.task if answer else item.task).uid
            self._sql.execute(SQL["add_key"], (owner, item.key, item.fingerprint, known[owner, item.key]))
        return [answer or Added(item.task) for item, answer in zip(new, answers, strict=True)], events

    def known(self, new: Sequence[NewTask], current: Current) -> int:
        """How many of them are replays."""
        return sum(answer is not None for answer in self._decide(new, current))

    def apply(self, changes: Sequence[Change], current: Current) -> list[Applied | None]:
        """None where the task was not as `before` any more."""
        return [self._apply(change, current) for change in changes]

    def save(self, rows: Sequence[Row]) -> None:
        """Progress that was only in memory (`saved_row`); a version that is on disk already stays."""
        self._sql.executemany(SQL["save_task"], rows)

    def record(self, rows: Sequence[Delivery]) -> None:
        """Outcomes of deliveries; those that are not pending any more (acknowledged meanwhile) stay as they are."""
        self._sql.executemany(SQL["record"], [delivery_changed_row(row) for row in rows])

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
        self._sql.executemany(SQL["record"], [delivery_changed_row(replace(row, next_at=now)) for row in rows])
        return sorted({row.target for row in rows})

    def pause(self, zone: str, paused: bool) -> None:
        self._sql.execute(SQL["pause" if paused else "resume"], (zone,))

    def purge(self, finished_before: float, keep: int, limit: int) -> list[str]:
        """Remove finished tasks with their history; answers their uids."""
        uids = [uid for (uid,) in self._sql.execute(SQL["old"], (finished_before, limit))]
        last = self._sql.execute(SQL["newest_beyond"], (keep,)).fetchone() if len(uids) < limit else None
        if last is not None:
            seen = set(uids)
            uids += [uid for (uid,) in self._sql.execute(SQL["beyond"], (*last, limit)) if uid not in seen]
        uids = uids[:limit]
        horizon = int(self.meta("horizon") or 0)
        for uid in uids:
            horizon = max(horizon, self._sql.execute(SQL["last_event_of"], (uid,)).fetchone()[0] or 0)
        for name in ("purge_task", "purge_events", "purge_deliveries", "purge_keys"):
            self._sql.executemany(SQL[name], [(uid,) for uid in uids])
        if uids:
            self.set_meta("horizon", str(horizon))
        return uids

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
        row = self._sql.execute(SQL["live"], triple).fetchone()
        return None if row is None else task_of(row[0])

    def _task(self, uid: str) -> Task | None:
        row = self._sql.execute(SQL["task"], (uid,)).fetchone()
        return None if row is None else task_of(row[0])

    def _delivery(self, delivery_id: str) -> Delivery:
        row = self._sql.execute(SQL["delivery"], (delivery_id,)).fetchone()
        if row is None:
            raise NotFound(f"cannot find callback {delivery_id}: there is none with this id, or its task was removed")
        return delivery_of(row)

    def _numbered(self, event: Event) -> Event:
        self.seq += 1
        return replace(event, seq=self.seq)

    def _apply(self, change: Change, current: Current) -> Applied | None:
        task = after(change.task, current(change.task.uid))
        if self._sql.execute(SQL["change_task"], changed_row(task, change.before.task_seq)).rowcount != 1:
            return None
        events = [self._numbered(event) for event in change.events]
        seqs = {event.task_seq: event.seq for event in events}
        deliveries = [replace(row, seq=seqs.get(row.task_seq, row.seq)) for row in change.deliveries]
        self._sql.executemany(SQL["add_event"], [event_row(event) for event in events])
        if deliveries:
            self._sql.executemany(SQL["add_delivery"], [delivery_row(row) for row in deliveries])
        return Applied(task, events, deliveries)


def _refuse_other_members(old: Task, new: Task, index: int) -> None:
    names = differing(old, new)
    if names:
        raise Conflict(
            f"cannot register {new.id!r} ({new.action} in zone {new.zone}): it is being watched as task {old.uid} with other "
            f"members: {', '.join(names)}; send the same members, or wait until that task has ended",
            members=[(f"/{name}", "differs from the task that is being watched") for name in names],
            extra={"index": index, "uid": old.uid},
        )
