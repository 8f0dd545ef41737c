"""Who is told what: the deliveries that belong to a change, made with it in one commit (I4)."""

from collections.abc import Callable

from msgspec import json
from msgspec.structs import replace

from task_daemon.core.model import Change, Delivery, Event, Task
from task_daemon.core.ports import Call, RegionCalls
from task_daemon.core.view import task_view

BODY_LIMIT = 20_000  # bytes; what Standard Webhooks asks senders to stay below

ASKED_BY = {
    "task.succeeded": "finished",
    "task.failed": "finished",
    "task.cancelled": "finished",
    "task.lost": "finished",
    "task.resolved": "finished",
    "task.progress": "progress",
    "task.stalled": "stalled",
    "task.size": "size",
}
"""Which member of a callback's `events` asks for an event."""

REGION_OUTCOME = {
    "task.succeeded": "finished",
    "task.failed": "failed",
    "task.cancelled": "failed",  # the region must hear of every end, and it knows only these two
    "task.lost": "failed",
    "task.size": "size",
}


class Notices:
    """Plans the deliveries of a change.

    `lane` gives the receiver of a callback URL (scheme and authority). `region` is the region's route table; without it,
    tasks without a callback are told to nobody.
    """

    def __init__(self, lane: Callable[[str], str], region: RegionCalls | None) -> None:
        self._lane = lane
        self._region = region

    def attach(self, change: Change) -> Change:
        """The change with the deliveries that its events call for."""
        if not change.events or (change.task.callback is None and self._region is None):
            return change
        made = [delivery for event in change.events for delivery in self._deliveries(change.task, event)]
        return replace(change, deliveries=tuple(made)) if made else change

    def _deliveries(self, task: Task, event: Event) -> list[Delivery]:
        if task.callback is not None:
            asked = ASKED_BY.get(event.type)
            return [self._webhook(task, event)] if asked in task.callback.events else []
        if self._region is None:
            return []
        outcome = REGION_OUTCOME.get(event.type)
        if event.type == "task.resolved" and task.error is None:
            outcome = "finished"  # it was told as failed when it was lost; failing now would say nothing new
        if outcome is None:
            return []
        error = task.error.message if task.error else None
        return [self._call(task, event, part, call) for part, call in enumerate(self._region(task, outcome, error))]

    def _webhook(self, task: Task, event: Event) -> Delivery:
        assert task.callback is not None
        body = json.encode({"task": task_view(task)})
        if len(body) > BODY_LIMIT:
            body = json.encode({"task": task_view(replace(task, params=None))})
        url = task.callback.url
        return _delivery(task, event, 0, "webhook", self._lane(url), "POST", url, body, task.callback.secret)

    def _call(self, task: Task, event: Event, part: int, call: Call) -> Delivery:
        return _delivery(task, event, part, "region", "region", call.method, call.path, json.encode(call.body), None)


def _delivery(
    task: Task, event: Event, part: int, via: str, target: str, method: str, url: str, body: bytes, secret: str | None
) -> Delivery:
    return Delivery(
        id=f"msg_{task.uid}_{event.task_seq}_{part}",
        uid=task.uid,
        task_seq=event.task_seq,
        part=part,
        type=event.type,
        via=via,
        target=target,
        method=method,
        url=url,
        body=body,
        owner_uid=task.owner.uid,
        created_at=event.time,
        next_at=event.time,
        secret=secret,
    )
