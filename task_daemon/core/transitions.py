"""Every way a task may change. Nothing else in the house makes a task's next version (invariant I3).

Each function takes a task and answers a `Change` (or None: nothing to change); the engine applies it only if the task
is still as it was. A change of state always carries exactly one event, the end of a task exactly one terminal event (I7).
"""

from typing import Any

from msgspec.structs import replace

from task_daemon.core.errors import AlreadyFinished, NotCancellable, NotLost
from task_daemon.core.model import Change, ErrorKind, Event, Mode, Progress, Report, State, Task, TaskError, Verdict

MOVES: dict[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.RUNNING, State.CANCELLING, State.SUCCEEDED, State.FAILED, State.CANCELLED, State.LOST}),
    State.RUNNING: frozenset({State.CANCELLING, State.SUCCEEDED, State.FAILED, State.CANCELLED, State.LOST}),
    State.CANCELLING: frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED, State.LOST}),
    State.LOST: frozenset({State.SUCCEEDED, State.FAILED}),
    State.SUCCEEDED: frozenset(),
    State.FAILED: frozenset(),
    State.CANCELLED: frozenset(),
}

MISSES_UNTIL_LOST = 3  # good answers in a row without work that was seen before
STALL_AFTER = 600.0  # seconds without any progress
PROGRESS_CALLBACK_EVERY = 10.0  # seconds between two opt-in progress callbacks of one task
RATE_WEIGHT = 0.3  # of the newest measurement in the smoothed rate


def registered(task: Task, seq: int = 0) -> Event:
    """The first event of a task; stored with it in one transaction."""
    return Event(uid=task.uid, type="task.registered", time=task.created_at, task_seq=task.task_seq, seq=seq)


def launch(task: Task, handle: dict[str, Any] | None, now: float) -> Change:
    """Put on disk that the work is about to be started, and under which handle it will be found (I2)."""
    return _note(task, "task.launching", now, {"handle": handle} if handle else None, launched=True, handle=handle, tidy=False)


def apply(task: Task, report: Report, now: float, stall_after: float = STALL_AFTER) -> Change | None:
    """What a report makes of a task. A finished task and a report without evidence change nothing."""
    if task.done:
        return None
    match report.verdict:
        case Verdict.GOING_ON:
            change = _going_on(task, report, now, stall_after)
            return _with_size_event(task, report, change, now) if report.size else change
        case Verdict.UNKNOWN:
            return None
        case Verdict.SUCCEEDED:
            return _end(_with_size(task, report), State.SUCCEEDED, now, None, before=task, progress=_complete(task, report))
        case Verdict.FAILED:
            return _failed(task, report, now)
        case Verdict.VANISHED:
            return _vanished(task, report, now)


def start_failed(task: Task, kind: str, message: str, now: float) -> Change:
    """Starting was refused for good: the end of the task."""
    return _end(task, State.FAILED, now, TaskError(kind, message))


def work_gone(task: Task, message: str, now: float) -> Change:
    """The work was started before a crash and is not there any more."""
    return _end(task, State.LOST, now, TaskError(ErrorKind.LOST.value, message))


def expire(task: Task, now: float, zone_known: bool = True) -> Change | None:
    """The deadline has passed (wall time). None if it has not, or the task has ended."""
    if task.done or now < task.deadline_at:
        return None
    if zone_known:
        error = TaskError(ErrorKind.TIMEOUT.value, f"not finished {task.timeout:g} s after its registration")
    else:
        error = TaskError(
            ErrorKind.ZONE_REMOVED.value,
            f"zone {task.zone!r} is not configured any more, and {task.timeout:g} s have passed since the registration",
        )
    return _end(task, State.FAILED, now, error)


def cancel(task: Task, now: float, stop_tracking: bool = False) -> Change | None:
    """Ask for the cancellation of a task. None if that is under way already, or done.

    Raises AlreadyFinished, and NotCancellable for merely tracked work unless `stop_tracking` is set: the daemon did not
    start it and will not stop it, so cancelling ends the watching only.
    """
    if task.state is State.CANCELLED or task.state is State.CANCELLING:
        return None
    if task.done:
        raise AlreadyFinished(f"cannot cancel task {task.uid}: it has {task.state.value} already")
    if task.mode is Mode.TRACK:
        if not stop_tracking:
            raise NotCancellable(
                f"cannot cancel task {task.uid}: the daemon only tracks this work and did not start it; "
                'send {"stop_tracking": true} to stop watching it (the work itself goes on)',
                members=[("/stop_tracking", "must be true for tracked work")],
            )
        return _end(task, State.CANCELLED, now, None, detail={"reason": "tracking stopped; the work itself was not touched"})
    if task.state is State.QUEUED and not task.launched:
        return _end(task, State.CANCELLED, now, None, detail={"reason": "never started"})
    return _move(task, State.CANCELLING, "task.cancelling", now, None)


def resolve(task: Task, state: State, reason: str, now: float) -> Change:
    """A person decides how a lost task ended. Raises NotLost."""
    if task.state is not State.LOST:
        raise NotLost(f"cannot resolve task {task.uid}: it is {task.state.value}, and only a lost task can be resolved")
    error = None if state is State.SUCCEEDED else TaskError(ErrorKind.LOST.value, reason or "resolved as failed")
    return _move(task, state, "task.resolved", now, {"state": state.value, "reason": reason}, error=error)


def tidied(task: Task, now: float) -> Change:
    """The backend has cleaned up after the end."""
    return _note(task, "task.tidied", now, None, tidy=True)


def _going_on(task: Task, report: Report, now: float, stall_after: float) -> Change | None:
    progress, moved = _merge(task, report.progress, now)
    handle = task.handle if report.handle is None else report.handle
    if task.state is State.QUEUED:
        _check(task, State.RUNNING)
        started = replace(
            task,
            task_seq=task.task_seq + 1,
            revision=task.revision + 1,
            updated_at=now,
            state=State.RUNNING,
            progress=progress,
            last_progress_at=now,
            started_at=task.started_at or now,
            adopted=report.adopted,
            handle=handle,
            misses=0,
        )
        return _told(task, started, "task.running", now, {"adopted": True} if report.adopted else None)
    if moved:
        after = replace(
            task,
            revision=task.revision + 1,
            updated_at=now,
            progress=progress,
            last_progress_at=now,
            handle=handle,
            misses=0,
        )
        if task.stalled:
            return _told(task, replace(after, task_seq=task.task_seq + 1, stalled=False), "task.recovered", now, None)
        if task.callback is not None and _wants_progress(task, now):
            return _told(task, replace(after, task_seq=task.task_seq + 1, progress_told_at=now), "task.progress", now, None)
        return Change(task, after)
    since = task.last_progress_at or task.started_at or now
    if not task.stalled and now - since >= stall_after:
        return _note(task, "task.stalled", now, {"seconds": stall_after}, stalled=True, handle=handle, misses=0)
    if since <= now and not task.misses and handle == task.handle:
        return None
    quiet_since = task.last_progress_at if since <= now else now  # the wall clock was set back: the silence counts from here
    return Change(
        task,
        replace(task, revision=task.revision + 1, updated_at=now, last_progress_at=quiet_since, handle=handle, misses=0),
    )


def _with_size_event(task: Task, report: Report, change: Change | None, now: float) -> Change | None:
    """The size of a result is told once, as soon as it is known, together with whatever else the report changed."""
    if not report.size or report.size <= 0 or task.size_told:
        return change
    latest = task if change is None else change.task
    told = _note(latest, "task.size", now, {"size": report.size}, size=report.size, size_told=True)
    return told if change is None else replace(told, before=task, events=change.events + told.events)


def _failed(task: Task, report: Report, now: float) -> Change:
    progress, _ = _merge(task, report.progress, now)
    if report.cancelled and task.state is State.CANCELLING:
        return _end(task, State.CANCELLED, now, None, progress=progress)
    error = TaskError(report.kind, report.message or "the backend gave no reason", report.backend)
    return _end(_with_size(task, report), State.FAILED, now, error, before=task, progress=progress)


def _vanished(task: Task, report: Report, now: float) -> Change | None:
    if task.state is State.QUEUED and not task.launched and not report.certain:
        return None  # never seen: it may just not have started
    if not report.certain and task.misses + 1 < MISSES_UNTIL_LOST:
        return Change(before=task, task=replace(task, misses=task.misses + 1))
    if task.state is State.CANCELLING:
        return _end(task, State.CANCELLED, now, None, detail={"reason": "the work is not there any more"})
    message = report.message or f"the backend answered {MISSES_UNTIL_LOST} times in a row and does not know the work any more"
    return _end(task, State.LOST, now, TaskError(ErrorKind.LOST.value, message, report.backend))


def _end(
    task: Task,
    state: State,
    now: float,
    error: TaskError | None,
    detail: dict[str, Any] | None = None,
    before: Task | None = None,
    progress: Progress | None = None,
) -> Change:
    facts = dict(detail or {})
    if error is not None:
        facts["error"] = {"kind": error.kind, "message": error.message}
    shown = progress if progress is not None else task.progress
    if shown is not None and shown.eta_seconds is not None:
        shown = replace(shown, eta_seconds=None)
    _check(task, state)
    ended = replace(
        task,
        task_seq=task.task_seq + 1,
        revision=task.revision + 1,
        updated_at=now,
        state=state,
        error=error,
        finished_at=now,
        progress=shown,
        stalled=False,
        misses=0,
    )
    return _told(task if before is None else before, ended, f"task.{state.value}", now, facts or None)


def _move(task: Task, state: State, event: str, now: float, detail: dict[str, Any] | None, **fields: Any) -> Change:
    _check(task, state)
    return _note(task, event, now, detail, state=state, misses=0, **fields)


def _check(task: Task, state: State) -> None:
    if state not in MOVES[task.state]:
        raise AssertionError(f"no move from {task.state} to {state}")


def _note(task: Task, event: str, now: float, detail: dict[str, Any] | None, **fields: Any) -> Change:
    after = replace(task, task_seq=task.task_seq + 1, revision=task.revision + 1, updated_at=now, **fields)
    return _told(task, after, event, now, detail)


def _told(before: Task, after: Task, event: str, now: float, detail: dict[str, Any] | None) -> Change:
    """With the one event of this change. What happens for most tasks comes here with all its members in one `replace`."""
    return Change(before, after, (Event(after.uid, event, now, after.task_seq, detail),))


def _with_size(task: Task, report: Report) -> Task:
    """At the end a size that was never told is told with the end itself, not before it."""
    if report.size and report.size > 0 and not task.size_told:
        return replace(task, size=report.size)
    return task


def _wants_progress(task: Task, now: float) -> bool:
    if task.callback is None or "progress" not in task.callback.events:
        return False
    told = task.progress_told_at  # in the future if the wall clock was set back since
    return told is None or not 0 <= now - told < PROGRESS_CALLBACK_EVERY


def _complete(task: Task, report: Report) -> Progress:
    last = report.progress or task.progress
    return Progress(percent=100.0) if last is None else replace(last, percent=100.0, rate=None, eta_seconds=None)


def _merge(task: Task, seen: Progress | None, now: float) -> tuple[Progress | None, bool]:
    """The progress to show, and whether anything moved. `percent` never falls; rate and ETA are computed here."""
    old = task.progress
    if seen is None:
        return old, False
    percent = seen.percent
    if percent is not None and not 0.0 <= percent <= 100.0:
        percent = min(100.0, max(0.0, percent))
    if old is None:
        return replace(seen, percent=percent), True
    if old.percent is not None:
        percent = old.percent if percent is None else max(percent, old.percent)
    if (
        seen.done == old.done
        and percent == old.percent
        and seen.total == old.total
        and seen.message == old.message
        and seen.unit == old.unit
    ):
        return old, False
    rate, eta = old.rate, None
    since = task.last_progress_at
    if seen.done is not None:
        if old.done is not None and since is not None and now > since and seen.done >= old.done:
            fresh = (seen.done - old.done) / (now - since)
            rate = fresh if rate is None else RATE_WEIGHT * fresh + (1 - RATE_WEIGHT) * rate
        if rate and seen.total is not None and seen.total >= seen.done:
            eta = (seen.total - seen.done) / rate
    return Progress(percent, seen.done, seen.total, seen.unit, rate, eta, seen.message), True
