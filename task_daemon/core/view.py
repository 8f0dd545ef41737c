"""How a task, an event and a delivery look from outside: the members of the REST contract, in answers and callbacks alike."""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from msgspec import to_builtins

from task_daemon.core.model import Delivery, Event, Mode, Progress, Task


def rfc3339(seconds: float | None) -> str | None:
    """Unix seconds as RFC 3339 UTC with milliseconds; None stays None."""
    if seconds is None:
        return None
    milliseconds = round(seconds * 1000)
    return f"{_second(milliseconds // 1000)}.{milliseconds % 1000:03d}Z"


@lru_cache(maxsize=64)  # a request shows the same few seconds again and again, and strftime takes 3 us
def _second(whole: int) -> str:
    return datetime.fromtimestamp(whole, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def progress_view(progress: Progress | None) -> dict[str, Any]:
    if progress is None:
        return dict(_NO_PROGRESS)
    p = progress
    return {
        "percent": None if p.percent is None else round(p.percent, 2),
        "done": p.done,
        "total": p.total,
        "unit": p.unit,
        "rate": None if p.rate is None else round(p.rate, 1),
        "eta_seconds": None if p.eta_seconds is None else round(p.eta_seconds, 1),
        "message": p.message,
    }


_NO_PROGRESS = progress_view(Progress())


def task_view(
    task: Task,
    *,
    cancellable: bool = True,
    last_polled_at: float | None = None,
    next_poll_at: float | None = None,
    unreachable: bool = False,
    callbacks: dict[str, int] | None = None,
) -> dict[str, Any]:
    """The task of the REST contract. What only the engine knows (poll times, callback counts) is passed in.

    `cancellable` says whether the task's action can be cancelled at all.
    """
    flags = [
        name for name, on in (("stalled", task.stalled), ("backend_unreachable", unreachable), ("adopted", task.adopted)) if on
    ]
    created_at = rfc3339(task.created_at)
    view: dict[str, Any] = {
        "uid": task.uid,
        "id": task.id,
        "action": task.action,
        "zone": task.zone,
        "job": task.job if task.mode is Mode.TRACK else f"task-{task.uid}",
        "region_task_id": task.region_task_id,
        "params": task.params,
        "labels": task.labels or {},
        "callback": None if task.callback is None else to_builtins(task.callback),
        "owner": {"uid": task.owner.uid, "gid": task.owner.gid, "pid": task.owner.pid},
        "state": task.state._value_,
        "done": task.done,
        "revision": task.revision,
        "mode": task.mode._value_,
        "progress": progress_view(task.progress),
        "error": None
        if task.error is None
        else {"kind": task.error.kind, "message": task.error.message, "backend": task.error.backend},
        "flags": flags,
        "size": task.size,
        "timeout": task.timeout,
        "poll_interval": task.poll_interval,
        "created_at": created_at,
        "started_at": rfc3339(task.started_at),
        "updated_at": rfc3339(task.updated_at) if task.updated_at else created_at,
        "finished_at": rfc3339(task.finished_at),
        "deadline_at": rfc3339(task.deadline_at),
        "last_polled_at": rfc3339(last_polled_at),
        "last_progress_at": rfc3339(task.last_progress_at),
        "next_poll_at": None if task.done else rfc3339(next_poll_at),
        "cancellable": not task.done and cancellable,
    }
    if callbacks is not None:
        view["callbacks"] = callbacks
    if task.extra:
        view.update(task.extra)
    return view


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
