"""How tasks, events and deliveries lie in the tables, and the statements of `queries.sql` by name."""

import re
from importlib import resources
from typing import Any

import msgspec
from msgspec.structs import replace

from task_daemon.core.model import Delivery, Event, Task

_task = msgspec.json.Decoder(Task)
_delivery = msgspec.json.Decoder(Delivery)
_encode = msgspec.json.Encoder().encode

Row = tuple[Any, ...]


def queries() -> dict[str, str]:
    """Fixed texts, so that SQLite's prepared statements are found again."""
    text = resources.files(__package__).joinpath("queries.sql").read_text("utf-8")
    parts = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)
    return {name: sql.strip() for name, sql in zip(parts[1::2], parts[2::2], strict=True)}


SQL = queries()


def text(thing: Any) -> str:
    return _encode(thing).decode()


def task_of(body: str) -> Task:
    return _task.decode(body)


def task_row(task: Task) -> Row:
    region = None if task.region_task_id is None else str(task.region_task_id)
    return (
        task.uid,
        task.id,
        task.action,
        task.zone,
        task.state.value,
        task.done,
        task.task_seq,
        task.owner.uid,
        region,
        task.created_at,
        task.finished_at,
        task.tidy,
        task.deleted,
        text(task),
    )


def changed_row(task: Task, before_seq: int) -> Row:
    """Parameters of `change_task`."""
    return (
        task.state.value,
        task.done,
        task.task_seq,
        task.finished_at,
        task.tidy,
        task.deleted,
        text(task),
        task.uid,
        before_seq,
    )


def saved_row(task: Task) -> Row:
    """Parameters of `save_task`."""
    return text(task), task.uid, task.task_seq


def event_row(event: Event) -> Row:
    detail = None if event.detail is None else text(event.detail)
    return event.seq, event.uid, event.task_seq, event.type, event.time, detail


def event_of(row: Row) -> Event:
    uid, kind, time, task_seq, detail, seq = row
    return Event(uid, kind, time, task_seq, None if detail is None else msgspec.json.decode(detail), seq)


def delivery_row(row: Delivery) -> Row:
    kept = text(replace(row, body=b""))
    return row.id, row.uid, row.task_seq, row.part, row.target, row.owner_uid, row.state.value, row.next_at, row.body, kept


def delivery_changed_row(row: Delivery) -> Row:
    """Parameters of `record` and `change_delivery`."""
    return row.state.value, row.next_at, text(replace(row, body=b"")), row.id


def delivery_of(row: Row) -> Delivery:
    body, payload = row
    return replace(_delivery.decode(body), body=payload)
