"""What is read, in SQL, on a read-only connection. Reader thread only."""

import math
import sqlite3
from collections.abc import Sequence

from task_daemon.core.errors import CursorExpired
from task_daemon.core.model import Delivery, Event, Query, Task
from task_daemon.core.ports import Backlog
from task_daemon.engine.local.rows import SQL, delivery_of, event_of, task_of

Position = tuple[str, str, str]


class Reading:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._sql = connection

    def load(self, uid: str) -> Task | None:
        row = self._sql.execute(SQL["task"], (uid,)).fetchone()
        return None if row is None else task_of(row[0])

    def live(self, after: Position, limit: int) -> list[Task]:
        """Live tasks zone by zone, after this (zone, action, id)."""
        return [task_of(body) for (body,) in self._sql.execute(SQL["load_live"], (*after, limit))]

    def untidy(self, after: str, limit: int) -> list[Task]:
        return [task_of(body) for (body,) in self._sql.execute(SQL["load_untidy"], (after, limit))]

    def find(self, query: Query) -> tuple[list[Task], bool, int]:
        """Tasks, whether there are more, and the last event contained in this answer: one look at the store."""
        sql, values = finding(query)
        self._sql.execute("BEGIN")
        try:
            tasks = [task_of(body) for (body,) in self._sql.execute(sql, values)]
            row = self._sql.execute(SQL["last_seq"]).fetchone()
        finally:
            self._sql.execute("COMMIT")
        return tasks[: query.limit], len(tasks) > query.limit, row[0] if row else 0

    def events(self, after: int, limit: int, uid: str | None) -> list[Event]:
        if uid is not None:
            return [event_of(row) for row in self._sql.execute(SQL["events_of"], (uid, after, limit))]
        self._sql.execute("BEGIN")
        try:
            row = self._sql.execute(SQL["meta"], ("horizon",)).fetchone()
            found = [event_of(row) for row in self._sql.execute(SQL["events"], (after, limit))]
        finally:
            self._sql.execute("COMMIT")
        horizon = int(row[0]) if row else 0
        if 0 < after < horizon:  # 0 is no cursor: whatever is still there
            raise CursorExpired(
                f"cannot list events after {after}: some of them were removed with their tasks; "
                f"list the tasks and go on after {horizon}",
                extra={"oldest": horizon},
            )
        return found

    def deliveries(
        self, uid: str | None, state: str | None, before: str | None, limit: int, owner_uid: int | None
    ) -> list[Delivery]:
        if uid is not None:
            rows = [delivery_of(row) for row in self._sql.execute(SQL["deliveries_of"], (uid,))]
            wanted = (row for row in rows if (state is None or row.state == state) and owner_uid in (None, row.owner_uid))
            return list(wanted)[:limit]
        sql, values = "SELECT body, payload FROM delivery WHERE 1", list[object]()
        for clause, value in ((" AND state = ?", state), (" AND id < ?", before), (" AND owner = ?", owner_uid)):
            if value is not None:
                sql += clause
                values.append(value)
        return [delivery_of(row) for row in self._sql.execute(sql + " ORDER BY id DESC LIMIT ?", (*values, limit))]

    def delivery(self, delivery_id: str) -> Delivery | None:
        row = self._sql.execute(SQL["delivery"], (delivery_id,)).fetchone()
        return None if row is None else delivery_of(row)

    def backlog(self) -> Backlog:
        (pending,) = self._sql.execute(SQL["count_of"], ("pending",)).fetchone()
        (dead,) = self._sql.execute(SQL["count_of"], ("dead",)).fetchone()
        (oldest,) = self._sql.execute(SQL["oldest"]).fetchone()
        return Backlog(pending, dead, oldest)

    def counts(self, uids: Sequence[str]) -> dict[str, dict[str, int]]:
        names = ("pending", "delivered", "dead")
        rows = {uid: self._sql.execute(SQL["counts_of"], (uid,)).fetchone() for uid in uids}
        return {uid: {name: int(count) for name, count in zip(names, row, strict=True)} for uid, row in rows.items()}

    def targets(self) -> list[str]:
        return [target for (target,) in self._sql.execute(SQL["targets"])]

    def lines(self, target: str, limit: int) -> tuple[list[Delivery], float]:
        """All pending deliveries of the tasks whose turn at this target comes first, and the wall time before which no
        other one's does (infinity: these were all)."""
        first = self._sql.execute(SQL["lines"], (target, limit)).fetchall()
        uids = dict.fromkeys(uid for uid, _ in first)
        rows = [delivery_of(row) for uid in uids for row in self._sql.execute(SQL["pending_of"], (uid,))]
        return rows, first[-1][1] if len(first) == limit else math.inf

    def paused(self) -> list[str]:
        return [zone for (zone,) in self._sql.execute(SQL["paused"])]


def finding(query: Query) -> tuple[str, list[object]]:
    """The statement for a query and its values. `done = 0` is written out, so that the partial index can serve it."""
    clauses, values = ["deleted = 0"], list[object]()
    if query.done is not None:
        clauses.append(f"done = {int(query.done)}")
    if query.states:
        clauses.append(f"state IN ({', '.join('?' * len(query.states))})")
        values += query.states
    pairs = (
        ("zone = ?", query.zone),
        ("action = ?", query.action),
        ("id = ?", query.id),
        ("region_task_id = ?", query.region_task_id),
        ("owner = ?", query.owner_uid),
        ("created_at > ?", query.created_after),
        ("uid < ?", query.before_uid),
    )
    for clause, value in pairs:
        if value is not None:
            clauses.append(clause)
            values.append(value)
    for label in query.labels:
        clauses.append("EXISTS (SELECT 1 FROM json_each(body, '$.labels') WHERE json_each.key = ? AND json_each.value = ?)")
        values += label
    sql = f"SELECT body FROM task WHERE {' AND '.join(clauses)} ORDER BY uid DESC LIMIT ?"  # noqa: S608 (fixed fragments)
    return sql, [*values, query.limit + 1]
