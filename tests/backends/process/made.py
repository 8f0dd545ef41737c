"""Tasks and zones for the tests of processes, and waiting for an end."""

import os
from pathlib import Path
from typing import Any

from task_daemon.backends.process import ProcessBackend, ProcessSettings
from task_daemon.clock import SystemClock
from task_daemon.core.errors import BackendError
from task_daemon.core.model import Mode, Owner, Report, Task, Verdict
from task_daemon.core.ports import Backend, ZoneContext
from tests.waiting import eventually

NOBODY = Owner(uid=65534, gid=65534)


def context(directory: Path) -> ZoneContext:
    return ZoneContext(name="local", directory=str(directory), poll_timeout=10.0, clock=SystemClock())


def backend(directory: Path, **settings: Any) -> ProcessBackend:
    return ProcessBackend(ProcessSettings(**settings), context(directory))


def command(*argv: str, uid: str = "task-1", owner: Owner | None = None, **params: Any) -> Task:
    return _task(uid, "command", Mode.RUN, owner, params={"argv": list(argv), **params})


def watched(job: str, owner: Owner | None = None, **members: Any) -> Task:
    return _task("task-1", "process", Mode.TRACK, owner, job=job, **members)


def look(backend: Backend, task: Task) -> Report:
    return backend.poll([task])[task.uid]


def until_ended(backend: Backend, task: Task) -> Report:
    reports: list[Report] = []

    def ended() -> bool:
        reports.append(look(backend, task))
        return reports[-1].verdict not in (Verdict.GOING_ON, Verdict.UNKNOWN)

    eventually(f"the end of {task.uid}", ended)
    return reports[-1]


def forget(backend: Backend, task: Task) -> None:
    """As the daemon does: repeated until it returns without an error."""

    def forgotten() -> bool:
        try:
            backend.actions[task.action].forget(task)
        except BackendError:
            return False
        return True

    eventually(f"cleaning up after {task.uid}", forgotten)


def _task(uid: str, action: str, mode: Mode, owner: Owner | None, **members: Any) -> Task:
    me = owner or Owner(uid=os.geteuid(), gid=os.getegid())
    return Task(
        uid=uid,
        id="thing",
        action=action,
        zone="local",
        mode=mode,
        owner=me,
        created_at=0.0,
        timeout=60.0,
        deadline_at=60.0,
        **members,
    )
