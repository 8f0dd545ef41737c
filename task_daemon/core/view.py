"""How a task, an event and a delivery look from outside: the members of the REST contract, in answers and callbacks alike."""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import asdict

from task_daemon.core.model import CallbackTarget, Delivery, Event, Mode, Progress, State, Task


def rfc3339(seconds: float | None) -> str | None:
    """Unix seconds as RFC 3339 UTC with milliseconds; None stays None."""
    return None if seconds is None else _stamp(seconds)


def _stamp(seconds: float) -> str:
    milliseconds = round(seconds * 1000)
    return _second(milliseconds // 1000) + _PART[milliseconds % 1000]


_PART = [f".{milliseconds:03d}Z" for milliseconds in range(1000)]


_stamp_of_many = lru_cache(maxsize=16)(_stamp)  # the tasks of a batch have the same few times


@lru_cache(maxsize=64)  # a request shows the same few seconds again and again, and strftime takes 3 us
def _second(whole: int) -> str:
    return datetime.fromtimestamp(whole, UTC).strftime("%Y-%m-%dT%H:%M:%S")


class OwnerView(Struct, frozen=True, gc=False):
    uid: int
    gid: int
    pid: int


class ProgressView(Struct, frozen=True, gc=False):
    percent: float | None = None
    done: int | None = None
    total: int | None = None
    unit: str | None = None
    rate: float | None = None
    eta_seconds: float | None = None
    message: str | None = None


def progress_view(progress: Progress | None) -> ProgressView:
    if progress is None:
        return _NO_PROGRESS
    p = progress
    return ProgressView(
        None if p.percent is None else round(p.percent, 2),
        p.done,
        p.total,
        p.unit,
        None if p.rate is None else round(p.rate, 1),
        None if p.eta_seconds is None else round(p.eta_seconds, 1),
        p.message,
    )


_NO_PROGRESS = ProgressView()


class TaskView(Struct, frozen=True, gc=False, kw_only=True):
    """The members of a task in their order. The defaults are those of one that was registered a moment ago."""

    uid: str
    id: str
    action: str
    zone: str
    job: str | None
    region_task_id: str | int | None
    params: dict[str, Any] | None
    labels: dict[str, str]
    callback: CallbackTarget | None
    owner: OwnerView
    state: State = State.QUEUED
    done: bool = False
    revision: int = 1
    mode: Mode
    progress: ProgressView = _NO_PROGRESS
    error: dict[str, Any] | None = None
    flags: tuple[str, ...] = ()
    size: int | None = None
    timeout: float
    poll_interval: float | None
    created_at: str
    started_at: str | None = None
    updated_at: str
    finished_at: str | None = None
    deadline_at: str
    last_polled_at: str | None = None
    last_progress_at: str | None = None
    next_poll_at: str | None
    cancellable: bool
    callbacks: Mapping[str, int] | UnsetType = UNSET


Shown = TaskView | dict[str, Any]
"""A task with its members in their order; a dictionary if the registrant has given it members of its own."""


def task_view(
    task: Task,
    *,
    cancellable: bool = True,
    last_polled_at: float | None = None,
    next_poll_at: float | None = None,
    unreachable: bool = False,
    callbacks: Mapping[str, int] | UnsetType = UNSET,
) -> Shown:
    """The task of the REST contract. What only the engine knows (poll times, callback counts) is passed in.

    `cancellable` says whether the task's action can be cancelled at all.
    """
    owner, done, error, created_at = task.owner, task.done, task.error, _stamp(task.created_at)
    view = TaskView(
        uid=task.uid,
        id=task.id,
        action=task.action,
        zone=task.zone,
        job=task.job if task.mode is Mode.TRACK else f"task-{task.uid}",
        region_task_id=task.region_task_id,
        params=task.params,
        labels=task.labels or _NO_LABELS,
        callback=task.callback,
        owner=OwnerView(owner.uid, owner.gid, owner.pid),
        state=task.state,
        done=done,
        revision=task.revision,
        mode=task.mode,
        progress=progress_view(task.progress),
        error=None if error is None else {"kind": error.kind, "message": error.message, "backend": error.backend},
        flags=_flags(task.stalled, unreachable, task.adopted),
        size=task.size,
        timeout=task.timeout,
        poll_interval=task.poll_interval,
        created_at=created_at,
        started_at=rfc3339(task.started_at),
        updated_at=_stamp(task.updated_at) if task.updated_at else created_at,
        finished_at=rfc3339(task.finished_at),
        deadline_at=_stamp(task.deadline_at),
        last_polled_at=rfc3339(last_polled_at),
        last_progress_at=rfc3339(task.last_progress_at),
        next_poll_at=None if done else rfc3339(next_poll_at),
        cancellable=not done and cancellable,
        callbacks=callbacks,
    )
    return _with(view, task.extra) if task.extra else view


def fresh_view(
    task: Task, *, cancellable: bool, next_poll_at: float | None, unreachable: bool, callbacks: Mapping[str, int]
) -> Shown:
    """What `task_view` makes of a task that was registered a moment ago, in a third of the time."""
    owner, created_at = task.owner, _stamp_of_many(task.created_at)
    view = TaskView(
        uid=task.uid,
        id=task.id,
        action=task.action,
        zone=task.zone,
        job=task.job if task.mode is Mode.TRACK else f"task-{task.uid}",
        region_task_id=task.region_task_id,
        params=task.params,
        labels=task.labels or _NO_LABELS,
        callback=task.callback,
        owner=OwnerView(owner.uid, owner.gid, owner.pid),
        mode=task.mode,
        flags=_flags(False, unreachable, False),
        timeout=task.timeout,
        poll_interval=task.poll_interval,
        created_at=created_at,
        updated_at=created_at,
        deadline_at=_stamp_of_many(task.deadline_at),
        next_poll_at=None if next_poll_at is None else _stamp_of_many(next_poll_at),
        cancellable=cancellable,
        callbacks=callbacks,
    )
    return _with(view, task.extra) if task.extra else view


def _with(view: TaskView, extra: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in asdict(view).items() if value is not UNSET} | extra


_NO_LABELS: dict[str, str] = {}


@lru_cache(maxsize=8)
def _flags(stalled: bool, unreachable: bool, adopted: bool) -> tuple[str, ...]:
    named = (("stalled", stalled), ("backend_unreachable", unreachable), ("adopted", adopted))
    return tuple([name for name, on in named if on])


def event_view(event: Event) -> dict[str, Any]:
    return {
        "seq": event.seq,
        "uid": event.uid,
        "task_seq": event.task_seq,
        "type": event.type,
        "time": rfc3339(event.time),
        "detail": event.detail or {},
    }


def progress_event_view(task: Task) -> dict[str, Any]:
    """How far a task is, in the form of an event: one that is not durable and so has no sequence."""
    detail = {"state": task.state.value, "revision": task.revision, "progress": progress_view(task.progress)}
    return {"uid": task.uid, "type": "progress", "time": rfc3339(task.updated_at or task.created_at), "detail": detail}


def delivery_view(delivery: Delivery) -> dict[str, Any]:
    return {
        "id": delivery.id,
        "uid": delivery.uid,
        "seq": delivery.seq,
        "task_seq": delivery.task_seq,
        "part": delivery.part,
        "type": delivery.type,
        "via": delivery.via,
        "method": delivery.method,
        "url": delivery.url,
        "state": delivery.state.value,
        "attempts": delivery.attempts,
        "created_at": rfc3339(delivery.created_at),
        "next_at": rfc3339(delivery.next_at) if delivery.state.value == "pending" else None,
        "tries": [
            {"at": rfc3339(t.at), "seconds": round(t.seconds, 3), "status": t.status, "error": t.error, "answer": t.answer}
            for t in delivery.tries
        ],
    }
