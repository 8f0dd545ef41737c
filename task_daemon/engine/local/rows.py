"""How tasks, events and deliveries lie in the tables, and the statements of `queries.sql` by name."""

import re
import sqlite3
from collections.abc import Sequence
from functools import lru_cache
from importlib import resources
from itertools import chain
from operator import attrgetter
from typing import Any

import msgspec
from msgspec.structs import replace

from task_daemon.core.model import Delivery, Event, Task
from task_daemon.core.ports import NewTask

Row = tuple[Any, ...]

CHUNKS = (500, 250, 200, 100, 64, 50, 32, 20, 16, 10, 8, 7, 6, 5, 4, 3, 2, 1)
"""Rows in one statement; each length is prepared once. The long ones are those that people choose for a batch."""

_fields = {field.name: (field.name, field.type, field.default) for field in msgspec.structs.fields(Task)}
MOVING = tuple(_fields)[tuple(_fields).index("state") :]  # what of a task changes after its registration
_Moving = msgspec.defstruct("Moving", [_fields[name] for name in MOVING], omit_defaults=True, gc=False)
_values_of = attrgetter(*MOVING)
_task = msgspec.json.Decoder(Task)
moving_of = msgspec.json.Decoder(_Moving).decode
_delivery = msgspec.json.Decoder(Delivery)
_encode = msgspec.json.Encoder().encode


def queries() -> dict[str, str]:
    text = resources.files(__package__).joinpath("queries.sql").read_text("utf-8")
    parts = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)
    return {name: sql.strip() for name, sql in zip(parts[1::2], parts[2::2], strict=True)}


SQL = queries()
"""Fixed texts, so that SQLite's prepared statements are found again. What is in brackets is one of the rows of `many`."""


def many(connection: sqlite3.Connection, name: str, rows: Sequence[Row]) -> int:
    """Run a statement for many rows, up to 500 at a time: with each statement the thread gives the interpreter lock away and may
    have to wait for it, which costs more than the rows. Answers how many rows were written."""
    count = 0
    for start, size in _pieces(len(rows)):
        values = rows[start] if size == 1 else tuple(chain.from_iterable(rows[start : start + size]))
        count += connection.execute(repeated(name, size), values).rowcount
    return count


@lru_cache(maxsize=256)
def _pieces(rows: int) -> Sequence[tuple[int, int]]:
    """What each statement takes of so many rows: where it begins, and how many."""
    found: list[tuple[int, int]] = []
    start = 0
    for size in CHUNKS:
        while rows - start >= size:
            found.append((start, size))
            start += size
    return found


@lru_cache(maxsize=256)
def repeated(name: str, rows: int) -> str:
    """The text of a statement of `many`."""
    before, row, after = re.split(r"[\[\]]", SQL[name])
    return before + ", ".join([row] * rows) + after


def text(thing: Any) -> str:
    return _encode(thing).decode()


def task_of(body: str, moved: str | None = None) -> Task:
    """`moved`: the row of `progress`."""
    task = _task.decode(body)
    if moved is None:
        return task
    newer = replace(task, **dict(zip(MOVING, _values_of(moving_of(moved)), strict=True)))
    return task if newer.revision < task.revision else newer


def task_row(n: int, new: NewTask) -> Row:
    """Parameters of `add_task`. `n`: the sequence of its registration."""
    task = new.task
    region = None if task.region_task_id is None else str(task.region_task_id)
    return (
        n,
        task.uid,
        task.id,
        task.action,
        task.zone,
        task.state.value,
        n if task.done else 0,
        task.task_seq,
        task.owner.uid,
        region,
        task.created_at,
        task.finished_at,
        task.tidy,
        task.deleted,
        text(task),
        new.key,
        None if new.key is None else new.fingerprint,
    )


def moved_row(task: Task, before_seq: int) -> Row:
    """Parameters of `move_task`."""
    return task.state.value, task.task_seq, text(task), task.uid, before_seq


def ended_row(task: Task, before_seq: int) -> Row:
    """Parameters of `end_task`."""
    return (*moved_row(task, before_seq), task.finished_at, task.tidy, task.deleted)


def saved_row(task: Task) -> Row:
    """Parameters of `save_task`."""
    return task.uid, task.task_seq, text(_Moving(*_values_of(task)))


def event_row(event: Event) -> Row:
    """Parameters of `add_event`."""
    detail = None if event.detail is None else text(event.detail)
    return event.seq, event.uid, event.task_seq, event.type, event.time, detail


def event_of(row: Row) -> Event:
    uid, kind, time, task_seq, detail, seq = row
    return Event(uid, kind, time, task_seq, None if detail is None else msgspec.json.decode(detail), seq)


def delivery_row(n: int, row: Delivery) -> Row:
    kept = text(replace(row, body=b""))
    return n, row.id, row.uid, row.task_seq, row.part, row.target, row.owner_uid, row.state.value, row.next_at, kept


def delivery_changed_row(row: Delivery) -> Row:
    """Parameters of `record` and `change_delivery`."""
    return row.state.value, row.next_at, text(replace(row, body=b"")), row.id


def delivery_of(row: Row) -> Delivery:
    body, payload = row
    return replace(_delivery.decode(body), body=payload)
