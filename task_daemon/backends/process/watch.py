"""Watching a process that somebody else started.

`job` (or, when it is absent, `id`) names it: the pid, and optionally how to find out whether it went well, because a
process that is not our child takes its exit status with it:

    4711                            its end is seen, but not how it ended: the task becomes `lost`
    4711?exists=/srv/out.img        succeeded if that file is there after the end, failed if not
    4711?status=/run/me/status      succeeded if that file then says 0, failed if it says another number
                                    (written by the process' own wrapper: `work; echo $? > /run/me/status`)

Everything after `=` is the absolute path. It is looked at as the calling user.
"""

import re
import subprocess
from typing import Any

import msgspec
from msgspec import Struct

from task_daemon.backends.process import identity
from task_daemon.backends.process.account import PATH, Account, account_of, may_act_as
from task_daemon.backends.process.ends import Ends
from task_daemon.backends.process.reading import Reading
from task_daemon.core.errors import Forbidden, InvalidBody, StartRefused
from task_daemon.core.model import Mode, Report, Task, Verdict

ACCEPTED = "'PID', 'PID?exists=/path/of/result' or 'PID?status=/path/of/file-with-exit-status'"
LOOK_WITHIN = 2.0  # seconds for one look at a file, which may lie on a dead network file system

_JOB = re.compile(r"([1-9]\d{0,9})(?:\?(exists|status)=(/[^\x00]+))?")


class Job(Struct, frozen=True):
    """`check`: "exists" or "status", with the path it is about; None: how it ended cannot be known."""

    pid: int
    check: str | None = None
    path: str = ""


class NoParams(Struct, frozen=True, forbid_unknown_fields=True):
    """Watching takes no parameters."""


def parse_job(text: str) -> Job:
    """Raises InvalidBody naming /job."""
    found = _JOB.fullmatch(text)
    if found is None:
        raise _wrong(f"{text!r} does not name a process; accepted: {ACCEPTED}")
    return Job(pid=int(found[1]), check=found[2], path=found[3] or "")


class WatchAction:
    name = "process"
    params: type[Struct] = NoParams
    cancellable = False
    summary = "Watch a process that you started: job is its pid."

    def __init__(self, ends: Ends) -> None:
        self._ends = ends
        self._reading = Reading()

    def admit(self, task: Task) -> dict[str, Any]:
        """The process as it is now: pid, start time, boot id."""
        if task.mode is Mode.RUN:
            text = "must be absent: a process is only watched; to run one use action 'command'"
            raise InvalidBody(f"cannot watch {task.id!r}: params {text}", members=[("/params", text)])
        job = parse_job(task.job or task.id)
        caller = task.owner.uid
        if job.check is not None and not may_act_as(caller):
            raise Forbidden(f"cannot check {job.path!r} as uid {caller}: the daemon looks at files of others only if it is root")
        facts = identity.facts(job.pid)
        if facts is None:
            raise _wrong(f"there is no process {job.pid}; accepted: {ACCEPTED}")
        if not facts.leader:
            raise _wrong(f"{job.pid} is one thread of a process, not a process; accepted: {ACCEPTED}")
        if caller not in (0, facts.uid):
            raise _wrong(f"process {job.pid} belongs to uid {facts.uid}, not to you (uid {caller}); accepted: a process of yours")
        handle: dict[str, Any] = msgspec.to_builtins(facts.identity)
        return handle

    def prepare(self, task: Task) -> dict[str, Any] | None:  # noqa: ARG002 - the port has it
        """Nothing is started, so there is nothing to find again."""
        return None

    def start(self, task: Task) -> Report | None:
        raise StartRefused(f"cannot start process {task.id!r}: a process is only watched; to run one use action 'command'")

    def look(self, task: Task) -> Report:
        process = msgspec.convert(task.handle, identity.Identity)
        if identity.alive(process):
            self._ends.add(process)
            return Report(Verdict.GOING_ON, progress=self._reading.look(task.uid, process.pid))
        self._reading.drop(task.uid)
        return _judge(parse_job(task.job or task.id), process, account_of(task.owner))

    def cancel(self, task: Task) -> None:
        """The process is not ours to stop."""

    def forget(self, task: Task) -> None:
        self._reading.drop(task.uid)


def _judge(job: Job, process: identity.Identity, account: Account) -> Report:
    """How a process ended that is not there any more."""
    if job.check is None:
        restarted = " (the machine was restarted)" if process.boot != identity.boot_id() else ""
        message = f"process {job.pid} has ended{restarted}, with an exit status that only its parent can know; "
        return Report(Verdict.VANISHED, message=message + f"to have it judged, register job as one of {ACCEPTED}", certain=True)
    program = ["test", "-e", job.path] if job.check == "exists" else ["head", "-c", "32", "--", job.path]
    identify = {"user": account.uid, "group": account.gid, "extra_groups": account.groups} if account.other else {}
    try:
        seen = subprocess.run(  # noqa: S603 - fixed programs, no shell; the path is one argument
            program,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env={"PATH": PATH},
            cwd="/",
            timeout=LOOK_WITHIN,
            check=False,
            **identify,  # type: ignore[call-overload]
        )
    except subprocess.TimeoutExpired:
        return Report(Verdict.UNKNOWN)  # looked at again with the next poll
    if job.check == "exists":
        return _by_existence(job, seen.returncode == 0)
    return _by_status(job, seen.stdout)


def _by_existence(job: Job, there: bool) -> Report:
    if there:
        return Report(Verdict.SUCCEEDED)
    return Report(Verdict.FAILED, message=f"process {job.pid} has ended, and {job.path} is not there")


def _by_status(job: Job, text: bytes) -> Report:
    found = re.fullmatch(rb"\s*(\d{1,3})\s*", text)
    if found is None:
        message = f"process {job.pid} has ended, and {job.path} holds no exit status (a number from 0 to 255)"
        return Report(Verdict.VANISHED, message=message, certain=True)
    status = int(found[1])
    if status == 0:
        return Report(Verdict.SUCCEEDED)
    return Report(Verdict.FAILED, message=f"exit status {status}, says {job.path}", backend={"exit_status": status})


def _wrong(text: str) -> InvalidBody:
    return InvalidBody(f"cannot watch a process: {text}", members=[("/job", text)])
