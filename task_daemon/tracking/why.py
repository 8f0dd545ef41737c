"""Why a task is where it is, and what happens next and when: the answer of `explain`."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from task_daemon.core.model import Delivery, DeliveryState, Mode, State, Task
from task_daemon.core.ports import Times
from task_daemon.core.view import delivery_view, rfc3339

IN_TROUBLE = frozenset({"paused", "hung", "unreachable"})


def explained(
    task: Task,
    zone: Mapping[str, Any] | None,
    times: Times,
    deliveries: Sequence[Delivery],
    held: Collection[str],
    now: float,
) -> dict[str, Any]:
    """`zone`: its view, None if it is not configured any more. `held`: targets that failed so often that they are only probed.

    `now` (wall time) goes into the answer, so that its times can be told as "in 4 s" by whoever has another clock.
    """
    percent = None if task.progress is None else task.progress.percent
    return {
        "uid": task.uid,
        "id": task.id,
        "action": task.action,
        "mode": task.mode.value,
        "state": task.state.value,
        "percent": None if percent is None else round(percent, 2),
        "error": None if task.error is None else {"kind": task.error.kind, "message": task.error.message},
        "waiting_for": waiting_for(task, zone, deliveries, held),
        "now": rfc3339(now),
        "last_polled_at": rfc3339(times.last_polled_at),
        "next_poll_at": None if task.done else rfc3339(times.next_poll_at),
        "deadline_at": None if task.done else rfc3339(task.deadline_at),
        "missed_polls": task.misses,
        "to_clean_up": task.done and not task.tidy,
        "zone": zone or {"zone": task.zone, "state": "not configured"},
        "callbacks": [_callback(delivery, deliveries, held) for delivery in deliveries],
    }


def waiting_for(task: Task, zone: Mapping[str, Any] | None, deliveries: Sequence[Delivery], held: Collection[str]) -> str:
    """One sentence for people."""
    if task.done:
        return _after_the_end(deliveries, held)
    if zone is None:
        return f"zone {task.zone!r} to be configured again; it fails at its deadline otherwise"
    if zone["state"] in IN_TROUBLE:
        error = f": {zone['last_error']}" if zone["last_error"] else ""
        return f"zone {task.zone!r}, which is {zone['state']}{error}"
    if task.state is State.QUEUED:
        return "the work to be started" if task.mode is Mode.RUN else "the work to be seen in the backend for the first time"
    if task.state is State.CANCELLING:
        return "the backend to confirm the cancellation"
    if task.misses:
        return f"more evidence: the backend did not know the work in the last {task.misses} answers"
    return "the work to end" + (" (no progress for a long time)" if task.stalled else "")


def _after_the_end(deliveries: Sequence[Delivery], held: Collection[str]) -> str:
    first = _first_pending(deliveries)
    if first is not None:
        last = first.tries[-1].error if first.tries else "not tried yet"
        held_back = f"; its target {first.target} fails again and again and is only probed" if first.target in held else ""
        return f"the receiver of callback {first.id}: {last}; next try {rfc3339(first.next_at)}{held_back}"
    dead = next((each for each in deliveries if each.state is DeliveryState.DEAD), None)
    if dead is not None:
        return f"nobody any more: callback {dead.id} was given up; POST /v1/callbacks/{dead.id}/replay sends it again"
    return "nothing: it has ended" + (" and everybody was told" if deliveries else "")


def _callback(delivery: Delivery, deliveries: Sequence[Delivery], held: Collection[str]) -> dict[str, Any]:
    view = delivery_view(delivery)
    waits_for = None
    if delivery.state is DeliveryState.PENDING:
        first = _first_pending(deliveries)
        if first is not None and first.id != delivery.id:
            waits_for = f"callback {first.id} of the same task, which goes first"
        elif delivery.target in held:
            waits_for = f"its target {delivery.target}, which fails again and again and is only probed"
        else:
            waits_for = "its next try" if delivery.tries else "its first try"
    return view | {"waits_for": waits_for, "last_answer": view["tries"][-1] if view["tries"] else None}


def _first_pending(deliveries: Sequence[Delivery]) -> Delivery | None:
    """Deliveries of one task go out strictly in their order, so all others wait for this one."""
    return next((each for each in deliveries if each.state is DeliveryState.PENDING), None)
