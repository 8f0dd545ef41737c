"""What is read, in SQL, on a read-only connection. Reader thread only."""

import math
import sqlite3
from collections.abc import Sequence

from task_daemon.core.errors import CursorExpired
from task_daemon.core.model import Delivery, Event, Query, Task
from task_daemon.core.ports import Backlog
from task_daemon.engine.local.rows import SQL, delivery_of, event_of, task_of

Position = tuple[str, int]  # zone, number of the task in the order of registration

DELIVERY = SQL["delivery"].partition("\nWHERE")[0]
BEFORE = "(SELECT n + ({key} < ?) FROM {table} WHERE {key} <= ? ORDER BY {key} DESC LIMIT 1)"  # it may have been removed
TASK = SQL["task"].partition("\nWHERE")[0].replace("progress.body", "progress.body, {number}")


class Reading:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._sql = connection

    def load(self, uid: str) -> Task | None:
        row = self._sql.execute(SQL["task"], (uid,)).fetchone()
        return None if row is None else task_of(*row)

    def live(self, after: Position, limit: int) -> tuple[list[Task], Position | None]:
        """Live tasks zone by zone, and the place of the last one; None if there were no more."""
        zone: str | None = after[0]
        rows = self._sql.execute(SQL["load_live"], (*after, limit)).fetchall()
        while len(rows) < limit:
            (zone,) = self._sql.execute(SQL["next_zone"], (zone,)).fetchone()
            if zone is None:
                break
            rows += self._sql.execute(SQL["load_live"], (zone, 0, limit - len(rows))).fetchall()
        return [task_of(body, moved) for _, _, body, moved in rows], rows[-1][:2] if rows else None

    def untidy(self, after: int, limit: int) -> tuple[list[Task], int | None]:
        rows = self._sql.execute(SQL["load_untidy"], (after, limit)).fetchall()
        return [task_of(body, moved) for _, body, moved in rows], rows[-1][0] if rows else None

    def find(self, query: Query) -> tuple[list[Task], bool, int]:
        """Tasks, whether there are more, and the last event contained in this answer: one look at the store."""
        sql, values = finding(query)
        self._sql.execute("BEGIN")
        try:
            tasks = [task_of(body, moved) for body, moved, _ in self._sql.execute(sql, values)]
            (last,) = self._sql.execute(SQL["last_seq"]).fetchone()
        finally:
            self._sql.execute("COMMIT")
        return tasks[: query.limit], len(tasks) > query.limit, last

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
        sql, values = f"{DELIVERY} WHERE 1", list[object]()
        if state is not None:
            sql += " AND state = ?" + (" AND state <> 'delivered'" if state != "delivered" else "")
            values.append(state)
        if before is not None:
            sql += f" AND n < {BEFORE.format(key='id', table='delivery')}"
            values += [before] * 2
        if owner_uid is not None:
            sql += " AND owner = ?"
            values.append(owner_uid)
        return [delivery_of(row) for row in self._sql.execute(sql + " ORDER BY n DESC LIMIT ?", (*values, limit))]

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
        tasks = dict.fromkeys(task for task, _ in first)
        rows = [delivery_of(row) for task in tasks for row in self._sql.execute(SQL["pending_of"], (task,))]
        return rows, first[-1][1] if len(first) == limit else math.inf

    def paused(self) -> list[str]:
        return [zone for (zone,) in self._sql.execute(SQL["paused"])]


def finding(query: Query) -> tuple[str, list[object]]:
    """The statement for a query and its values. The index of a zone has the live tasks by `n`, then the others by `ended`, which
    for them is the same: each part is in order, and SQLite merges the two."""
    clauses, values = ["deleted = 0"], list[object]()
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
    )
    for clause, value in pairs:
        if value is not None:
            clauses.append(clause)
            values.append(value)
    for label in query.labels:
        clauses.append("EXISTS (SELECT 1 FROM json_each(task.body, '$.labels') WHERE json_each.key = ? AND json_each.value = ?)")
        values += label
    if query.before_uid is not None:
        clauses.append("{number} < " + BEFORE.format(key="uid", table="task"))
        values += [query.before_uid] * 2
    parts = [f"{TASK} WHERE {' AND '.join([ended, *clauses])}".format(number=number) for ended, number in _sides(query)]
    return f"{' UNION ALL '.join(parts)} ORDER BY 3 DESC LIMIT ?", [*values * len(parts), query.limit + 1]


def _sides(query: Query) -> list[tuple[str, str]]:
    """Conditions that leave nothing out, each with the column that gives the order of registration."""
    if query.zone is None:
        return [("1" if query.done is None else "ended > 0" if query.done else "ended = 0", "n")]
    live, over = ("ended = 0", "n"), ("ended > 0", "ended")
    return [live, over] if query.done is None else [over if query.done else live]
