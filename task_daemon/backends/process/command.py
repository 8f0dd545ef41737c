"""Running a command, as the user who asked for it, under a supervisor that outlives the daemon.

Before anything runs the supervisor links its claim into the job's directory. So the directory tells, after any crash:
no claim, never run; a claim and an end, over; a claim whose process lives, running; none of these, lost. Nothing is ever
run twice (I2), and the daemon may come and go (I9).
"""

import logging
import signal
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from task_daemon.backends.process import identity
from task_daemon.backends.process.account import account_of, may_act_as
from task_daemon.backends.process.ends import Ends
from task_daemon.backends.process.jobs import Claim, End, Job
from task_daemon.backends.process.progress import PARSERS, lines_of, newest
from task_daemon.backends.process.settings import ProcessSettings
from task_daemon.core.errors import BackendError, Forbidden, InvalidBody, StartRefused, WorkGone
from task_daemon.core.model import ErrorKind, Mode, Report, Task, Verdict
from task_daemon.core.ports import ZoneContext

log = logging.getLogger("task_daemon.backends")

OUTPUT_TOLD = 2000  # characters of the last output that go into a failure
STOP_WITHIN = 1.0  # seconds that cleaning up waits for a command to stop, before it is tried again later

Text = Annotated[str, Meta(pattern=r"^[^\x00]*$")]


class CommandParams(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`argv`: program and arguments, no shell. `cwd`: absolute, default `/`. `env`: added to PATH, HOME, USER, LOGNAME and
    LANG. `progress`: which program's output to look for; without it the last line of output is shown as it is."""

    argv: Annotated[list[Text], Meta(min_length=1, max_length=4096)]
    cwd: Annotated[str, Meta(pattern=r"^/[^\x00]*$", max_length=4095)] = "/"
    env: Annotated[dict[Annotated[str, Meta(pattern=r"^[^\x00=]+$")], Text], Meta(max_length=256)] = {}
    progress: Literal["percent", "rsync", "qemu-img", "restic"] | None = None


class CommandAction:
    name = "command"
    params: type[Struct] = CommandParams
    cancellable = True
    summary = "Run a command as the calling user; it goes on when the daemon stops."

    def __init__(self, settings: ProcessSettings, context: ZoneContext, ends: Ends) -> None:
        self._settings = settings
        self._zone = context.name
        self._directory = context.directory
        self._wait = context.poll_timeout
        self._ends = ends

    def admit(self, task: Task) -> None:
        if task.mode is Mode.TRACK:
            text = "argv and the like; to watch a process that runs already use action 'process'"
            raise InvalidBody(f"cannot run {task.id!r}: params are required: {text}", members=[("/params", text)])
        refused = self._refused(task)
        if refused:
            raise Forbidden(refused)

    def prepare(self, task: Task) -> dict[str, Any] | None:  # noqa: ARG002 - the port has it
        """The job's directory is named after the task, so there is nothing more to remember."""
        return None

    def start(self, task: Task) -> Report | None:
        refused = self._refused(task)
        if refused:
            raise StartRefused(refused)
        job = Job(self._directory, task.uid)
        adopted = job.claim() is not None
        if not adopted:
            self._launch(job, task)
        report = self.look(task)
        if report.verdict is Verdict.VANISHED:
            raise WorkGone(report.message or "")
        return msgspec.structs.replace(report, adopted=adopted)

    def look(self, task: Task) -> Report:
        job = Job(self._directory, task.uid)
        claim = job.claim()
        if claim is None:
            return _unclaimed(task, job)
        if claim.cancelled:
            return Report(Verdict.FAILED, message="cancelled before it was run", cancelled=True)
        runs = self._running(job, claim)
        end = job.end()  # read after the look at the processes: they write it and then go
        if end is not None:
            identity.reap(claim.identity)
            return _ended(end, job.tail())
        if runs is not None:
            self._ends.add(runs)
            parser = None if task.params is None else PARSERS.get(task.params.get("progress") or "")
            return Report(Verdict.GOING_ON, progress=newest(job.tail(), parser))
        identity.reap(claim.identity)
        return Report(Verdict.VANISHED, message=_why_gone(claim), certain=True)

    def cancel(self, task: Task) -> None:
        """SIGTERM to the command, SIGKILL after the zone's grace; both done by the supervisor, so once asked it happens."""
        job = Job(self._directory, task.uid)
        job.make(account_of(task.owner))
        if job.claim() is None and job.claim_as_cancelled():
            return
        if job.end() is None:
            self._stop(job, task)

    def forget(self, task: Task) -> None:
        """Raises BackendError while the command is still stopping."""
        job = Job(self._directory, task.uid)
        if not job.exists():
            return
        if job.claim() is None:
            job.claim_as_cancelled()
        claim = job.claim()
        if claim is not None and not claim.cancelled:
            if job.end() is None:
                self._stop(job, task)
            self._until_stopped(job, claim, task)  # also after the end: the supervisor writes it just before it goes
            identity.reap(claim.identity)
        job.remove()

    def _refused(self, task: Task) -> str | None:
        if not self._settings.run:
            return f"cannot run {task.id!r}: zone {self._zone} runs no commands; `run = true` in its settings would allow it"
        if not may_act_as(task.owner.uid):
            return f"cannot run {task.id!r} as uid {task.owner.uid}: only a daemon that is root may do that"
        return None

    def _launch(self, job: Job, task: Task) -> None:
        params = msgspec.convert(task.params, CommandParams)
        account = account_of(task.owner)
        job.make(account)
        order = {
            "argv": params.argv,
            "cwd": params.cwd,
            "env": account.environment() | params.env,
            "log_bytes": self._settings.log_bytes,
            "grace": self._settings.grace,
        }
        about = {"uid": task.uid, "zone": self._zone, "action": task.action}
        log.info("task %s: running %s as uid %d", task.uid, params.argv[0], account.uid, extra=about)
        job.supervise(order, account, wait=self._wait)

    def _running(self, job: Job, claim: Claim) -> identity.Identity | None:
        """The supervisor; if somebody killed that one, the command itself."""
        if identity.alive(claim.identity):
            return claim.identity
        child = job.child()
        return child if child is not None and identity.alive(child) else None

    def _stop(self, job: Job, task: Task) -> None:
        claim = job.claim()
        if claim is None or claim.cancelled or identity.send(claim.identity, signal.SIGTERM, task.owner.uid):
            return
        child = job.child()
        if child is not None and job.end() is None:
            # its supervisor is dead: nobody could wait for a gentle end
            identity.send(child, signal.SIGKILL, task.owner.uid, group=True)

    def _until_stopped(self, job: Job, claim: Claim, task: Task) -> None:
        runs = self._running(job, claim)
        if runs is None or identity.wait(runs, STOP_WITHIN):
            return
        self._ends.add(runs)
        raise BackendError(f"cannot remove the job of task {task.uid}: its command is still being stopped")


def _unclaimed(task: Task, job: Job) -> Report:
    if task.started_at is not None and not job.exists():
        return Report(Verdict.VANISHED, message="its job directory was removed; how the command ended is not known", certain=True)
    return Report(Verdict.UNKNOWN)


def _why_gone(claim: Claim) -> str:
    if claim.boot and claim.boot != identity.boot_id():
        return "the machine was restarted while the command ran"
    return "the command's supervisor was killed; how the command ended is not known"


def _ended(end: End, tail: str) -> Report:
    lines = lines_of(tail)
    last = f": {lines[-1][:500]}" if lines else ""
    details: dict[str, Any] = {"output": tail[-OUTPUT_TOLD:]}
    if end.error is not None:
        return Report(Verdict.FAILED, message=f"cannot run {end.error}", kind=ErrorKind.START_REFUSED.value)
    if end.cancelled:
        return Report(Verdict.FAILED, message=f"stopped by SIGTERM to its supervisor{last}", backend=details, cancelled=True)
    if end.signal is not None:
        name = _signal_name(end.signal)
        return Report(Verdict.FAILED, message=f"killed by {name}{last}", backend={"signal": name, **details})
    if end.status != 0:
        return Report(Verdict.FAILED, message=f"exit status {end.status}{last}", backend={"exit_status": end.status, **details})
    return Report(Verdict.SUCCEEDED)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
