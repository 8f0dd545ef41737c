"""Tasks of the storage backend, made by hand."""

from typing import Any

from task_daemon.core.model import Mode, Owner, State, Task

UID = "01890a5d-ac96-774b-bcce-b302099a8057"


def tracked(action: str = "backup", job: str | None = "job-1", **fields: Any) -> Task:
    return _task(action, Mode.TRACK, {"job": job, **fields})


def run(action: str, params: dict[str, Any], **fields: Any) -> Task:
    return _task(action, Mode.RUN, {"params": params, **fields})


def _task(action: str, mode: Mode, fields: dict[str, Any]) -> Task:
    given = {"uid": UID, "id": "disk-1", "state": State.QUEUED, **fields}
    return Task(
        action=action,
        zone="vm1",
        mode=mode,
        owner=Owner(0, 0),
        created_at=1_800_000_000.0,
        timeout=43200.0,
        deadline_at=1_800_043_200.0,
        **given,
    )
