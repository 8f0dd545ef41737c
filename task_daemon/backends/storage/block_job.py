"""What QEMU's list of jobs says about tasks: one `query-jobs` for all tasks of a zone, and a verdict for each.

The verdict is `concluded` plus the presence of `error`, never the percentage: 100 % was measured with QEMU 7.2 in
running (for ever), ready, waiting, pending, and concluded with an error; and `total-progress` may be 0 or grow.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from msgspec import Meta, Struct, ValidationError, convert, field

from task_daemon.backends.storage.qmp import CommandRefused, Peer, QmpConnection, readable
from task_daemon.core.errors import BackendUnreachable
from task_daemon.core.model import Mode, Progress, Report, Task, Verdict

log = logging.getLogger("task_daemon.backends")

CANCELED = "Operation canceled"  # the only trace of a cancellation in query-jobs (the events differ)
ONE_STEP = frozenset({"create", "amend", "snapshot-save", "snapshot-load", "snapshot-delete"})  # counted 0/1, not in bytes
UNDER_WAY = frozenset({"created", "running", "paused", "standby", "ready", "waiting", "pending", "aborting"})


Count = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]  # QEMU's int64; anything else is no job's progress


class Job(Struct, frozen=True):
    """One entry of `query-jobs`."""

    id: str
    status: str
    type: str = ""
    current: Count = field(default=0, name="current-progress")
    total: Count = field(default=0, name="total-progress")
    error: str | None = None


class Seen(Struct, frozen=True):
    """One good answer of the storage: its jobs by name (None: an entry that makes no sense), and which process gave it.

    `io_status`: by job name, of paused jobs only; query-jobs does not tell it.
    """

    jobs: Mapping[str, Job | None]
    peer: Peer
    io_status: Mapping[str, str] = {}


def look(connection: QmpConnection) -> Seen:
    """Ask for all jobs at once. A second question is needed only while a job is paused, to learn why.

    Raises BackendUnreachable, also for an answer that cannot be a list of jobs: what it does not name is not gone.
    """
    try:
        answer = connection.ask("query-jobs", expect=list)
    except CommandRefused as error:
        raise BackendUnreachable(f"cannot read the jobs of storage {connection.path}: {error}") from None
    if any(_name(entry) is None for entry in answer.value):
        raise BackendUnreachable(f"cannot read the jobs of storage {connection.path}: some of them have no name")
    jobs = read_jobs(answer.value)
    if not any(job is not None and job.status == "paused" for job in jobs.values()):
        return Seen(jobs, answer.peer)
    try:
        details = connection.execute("query-block-jobs", expect=list)
    except CommandRefused as error:
        log.debug("storage %s does not tell why jobs are paused: %s", connection.path, error)
        details = []
    io_status = {
        entry["device"]: entry["io-status"]
        for entry in details
        if isinstance(entry, dict) and isinstance(entry.get("device"), str) and isinstance(entry.get("io-status"), str)
    }
    return Seen(jobs, answer.peer, io_status)


def read_jobs(entries: Sequence[Any]) -> dict[str, Job | None]:
    """Entries by job name; an odd one spoils only itself."""
    jobs: dict[str, Job | None] = {}
    for entry in entries:
        name = _name(entry)
        if name is None:
            continue
        try:
            jobs[name] = convert(entry, Job)
        except ValidationError:
            jobs[name] = None
    return jobs


def _name(entry: Any) -> str | None:
    name = entry.get("id") if isinstance(entry, dict) else None
    return name if isinstance(name, str) else None


def own_name(task: Task) -> str:
    """The job of a run task. Job names must start with a letter, which a UUID often does not."""
    return f"task-{task.uid}"


def possible_names(task: Task) -> tuple[str, ...]:
    """Under which names the work of a task may be found; the first one that is there counts. Once seen, it keeps its name."""
    if task.mode is Mode.RUN:
        return (own_name(task),)
    if task.job is not None:
        return (task.job,)
    known = (task.handle or {}).get("job")
    if isinstance(known, str):
        return (known,)
    return (f"{task.action}-{task.id}", f"task-{task.id}", task.id)


def report(task: Task, seen: Seen) -> Report:
    """What a good answer of the storage means for one task."""
    for name in possible_names(task):
        if name in seen.jobs:
            job = seen.jobs[name]
            if job is None:
                return Report(Verdict.UNKNOWN, message=f"the storage's entry of job {name!r} makes no sense")
            return judge(task, job, seen)
    return absent(task, seen)


def judge(task: Task, job: Job, seen: Seen) -> Report:
    """The verdict on a job that is there."""
    handle = _remembered(task, job, seen.peer)
    size = job.total if task.action == "backup" and job.total > 0 else None
    if job.status == "concluded":
        if job.error is None:
            return Report(Verdict.SUCCEEDED, progress=_progress(job, None, 100.0), handle=handle, size=size)
        return Report(
            Verdict.FAILED,
            progress=_progress(job, None),
            message=readable(job.error),
            backend={"job": job.id, "type": job.type},
            cancelled=job.error == CANCELED,
        )
    if job.status not in UNDER_WAY:
        return Report(Verdict.UNKNOWN, message=f"job {job.id!r} is in state {job.status!r}, which is not known here")
    return Report(Verdict.GOING_ON, progress=_progress(job, _note(task, job, seen)), handle=handle, size=size)


def absent(task: Task, seen: Seen) -> Report:
    """The storage answered well and the job is not there. Jobs do not survive their storage process: another process
    than the one that had the job is proof enough, otherwise the core waits for more answers."""
    before = (task.handle or {}).get("peer")
    names = " or ".join(repr(name) for name in possible_names(task))
    if before is not None and seen.peer.identity is not None and before != seen.peer.identity:
        message = f"the storage was restarted (process {before} before, {seen.peer.identity} now) and with it job {names} is gone"
        return Report(Verdict.VANISHED, message=message, certain=True)
    return Report(Verdict.VANISHED, message=f"the storage answers and does not know job {names}{_dismissed(task)}")


def _dismissed(task: Task) -> str:
    """Why a job that somebody else started may be unknown: this is what a person reads whose finished backup is `lost`."""
    if task.mode is Mode.RUN:
        return ""
    return (
        '; QEMU forgets a job in the moment of its end, unless it was started with "auto-dismiss": false. '
        f"If this one has ended, look at its target and say how: taskctl resolve {task.uid} succeeded (or failed)"
    )


def _remembered(task: Task, job: Job, peer: Peer) -> dict[str, Any] | None:
    """The handle with the process that has the job, and the name it has there; None if that is known already."""
    handle = dict(task.handle or {})
    handle["peer"] = peer.identity
    if task.mode is Mode.TRACK:
        handle["job"] = job.id
    return handle if handle != task.handle else None


def _progress(job: Job, message: str | None, percent: float | None = None) -> Progress:
    """Percent stays below 100 until the job has concluded; unknown while the total is 0."""
    if percent is None and job.total > 0:
        percent = max(0.0, min(99.0, 100.0 * job.current / job.total))
    unit = None if job.type in ONE_STEP else "bytes"
    return Progress(percent=percent, done=job.current, total=job.total or None, unit=unit, message=message)


def _note(task: Task, job: Job, seen: Seen) -> str | None:
    """What a person should know about a job that does not simply run."""
    trouble = seen.io_status.get(job.id)
    match job.status:
        case "paused" if trouble == "nospace":
            return "paused: no space left on the target; make room, then job-resume"
        case "paused" if trouble not in (None, "ok"):
            return f"paused: I/O status {trouble!r}; repair the storage, then job-resume"
        case "ready" if task.mode is Mode.TRACK:
            return "ready: all is copied, and whoever started the job must complete it (job-complete)"
        case "ready":
            return "ready: all is copied, being completed"
        case "pending" if task.mode is Mode.TRACK:
            return "pending: whoever started the job must finalize it (job-finalize)"
        case "waiting":
            return "waiting for the other jobs of its transaction"
        case "aborting":
            return "being rolled back"
    return None
