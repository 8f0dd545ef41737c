"""A backend without anything behind it: it ships, it teaches, and tests use it as the outside world.

    [zones.play]
    backend = "simulated"
    scenario = "scenario.toml"          # or the same tables inline: scenario = [{ id = "d-*", finish_after = 3 }]

and in scenario.toml one table for each kind of job; the first whose `action` and `id` match a task counts (shell patterns,
both default `*`; a task that matches none is finished after 10 s):

    [[job]]
    action = "backup"
    id = "disk-1*"
    finish_after = 30                   # seconds, evenly; the time is the daemon's clock, so tests move it by hand
    size = 7340032                      # bytes of the result, told as soon as the job runs

    [[job]]
    id = "full-*"
    fail_at = 50                        # percent
    message = "No space left on device"

    [[job]]
    id = "stuck-*"
    stall_at = 40                       # percent ...
    stall_for = 600                     # ... seconds; left out: for ever

    [[job]]
    id = "gone-*"
    vanish_at = 70                      # percent; from then on the backend does not know it any more

A run task may bring the same members (without `action` and `id`) in its `params`; they override the scenario's.
The zone itself can misbehave too, with members of its `[zones.x]` table: see `SimulatedSettings`.
"""

import logging
import os
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, TextIO

import msgspec
from msgspec import Meta, Struct

from task_daemon.core.errors import BackendUnreachable, ConfigError
from task_daemon.core.model import Mode, Progress, Report, Task, Verdict
from task_daemon.core.ports import Action, Family, ZoneContext

log = logging.getLogger("task_daemon.backends")

ACTIONS = (
    "simulated",
    "clone",
    "clone_snapshot",
    "create_template",
    "commit_template",
    "migrate_template",
    "backup",
    "restore_backup",
    "delete_backup",
)
FINISH_AFTER = 10.0  # seconds
TOTAL = 1 << 30  # bytes every simulated job has to move

Seconds = Annotated[float, Meta(ge=0)]
Percent = Annotated[float, Meta(ge=0, le=100)]


class Script(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """How a job goes; every member is optional."""

    finish_after: Seconds | None = None
    fail_at: Percent | None = None
    message: str | None = None
    stall_at: Percent | None = None
    stall_for: Seconds | None = None
    vanish_at: Percent | None = None
    size: Annotated[int, Meta(ge=0)] | None = None

    def percent(self, elapsed: float) -> float:
        """How far the job is so many seconds after its start."""
        whole = FINISH_AFTER if self.finish_after is None else self.finish_after
        if self.stall_at is not None:
            before = whole * self.stall_at / 100
            held = float("inf") if self.stall_for is None else self.stall_for
            elapsed = min(elapsed, max(before, elapsed - held))
        return 100.0 if elapsed >= whole else 100.0 * max(0.0, elapsed) / whole


class Job(Script, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """One table of a scenario: which tasks, and how they go."""

    action: str = "*"
    id: str = "*"


UNWRITTEN = Job()  # of tasks that no table fits


class Scenario(Struct, frozen=True, forbid_unknown_fields=True):
    """A scenario file."""

    job: list[Job] = []


class SimulatedSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`scenario`: path of a scenario file, or its tables. `unreachable`: from and to, in seconds since the zone was opened.
    `answer_after`: seconds each call takes; beyond the zone's poll time-out it is unreachable. `remember`: keep jobs in the
    zone's directory, as a real storage would; without it, a job whose start a crash cut short is started anew.
    `forget_at_restart`: jobs begun before the zone was opened are gone. `one_by_one`: each call answers for one task.
    `log_calls`: a line in `calls.log` of the zone's directory for each call of a poll: when it began (wall time), for how many
    tasks, the uid of the first."""

    scenario: str | list[Job] = []
    unreachable: list[tuple[Seconds, Seconds]] = []
    answer_after: Seconds = 0.0
    remember: bool = False
    forget_at_restart: bool = False
    one_by_one: bool = False
    log_calls: bool = False


class Started(Struct, omit_defaults=True):
    """A job that the backend was asked to start; `at` is wall time."""

    at: float
    cancelled: bool = False


class SimulatedBackend:
    """`wait` is how time passes in slow answers."""

    def __init__(self, settings: SimulatedSettings, context: ZoneContext, wait: Callable[[float], object] | None = None) -> None:
        self._settings = settings
        self._context = context
        self._wait = wait or time.sleep
        self._jobs = _read(settings.scenario, context.name)
        self._opened = context.clock.monotonic()
        self._opened_at = context.clock.now()
        self._memory = Memory(Path(context.directory) if settings.remember else None)
        self.one_by_one = settings.one_by_one
        self._calls: TextIO | None = None
        names = [*ACTIONS, *(job.action for job in self._jobs if not set(job.action) & set("*?["))]
        self.actions: Mapping[str, Action] = {name: SimulatedAction(name, self) for name in names}

    def script(self, job: Job) -> None:
        """Have this table count before the ones there are, from the next poll on. Any thread."""
        self._jobs = [job, *self._jobs]
        if not set(job.action) & set("*?[") and job.action not in self.actions:
            self.actions = {**self.actions, job.action: SimulatedAction(job.action, self)}

    def admit(self, task: Task) -> dict[str, Any] | None:  # noqa: ARG002 - anything may be watched here
        return None

    def poll(self, tasks: Sequence[Task]) -> Mapping[str, Report]:
        found: dict[str, Report] = {}
        for some in [[task] for task in tasks] if self.one_by_one else [tasks]:
            if self._settings.log_calls and some:
                self._log_call(some)
            self._answer()
            found.update((task.uid, self._look(task)) for task in some)
        return found

    def events(self, wake: Callable[[], None]) -> None:
        """Announces nothing: its changes are seen at the regular polls."""

    def close(self) -> None:
        if self._calls is not None:
            self._calls.close()

    def start(self, task: Task) -> Report | None:
        self._answer()
        adopted = self._began(task) is not None
        if not adopted:
            self._memory.start(task.uid, self._context.clock.now())
        return msgspec.structs.replace(self._look(task), adopted=adopted)

    def cancel(self, task: Task) -> None:
        self._answer()
        if self._began(task) is None or self._look(task).verdict is Verdict.GOING_ON:
            self._memory.cancel(task.uid, self._context.clock.now())

    def forget(self, task: Task) -> None:
        self._answer()
        self._memory.forget(task.uid)

    def _log_call(self, tasks: Sequence[Task]) -> None:
        if self._calls is None:
            self._calls = (Path(self._context.directory) / "calls.log").open("a")
        self._calls.write(f"{self._context.clock.now():.4f} {len(tasks)} {tasks[0].uid}\n")

    def _answer(self) -> None:
        since = self._context.clock.monotonic() - self._opened
        if any(begin <= since < end for begin, end in self._settings.unreachable):
            raise BackendUnreachable(f"zone {self._context.name} does not answer: its scenario says so")
        slow, limit = self._settings.answer_after, self._context.poll_timeout
        if slow > 0:
            self._wait(min(slow, limit))
        if slow > limit:
            raise BackendUnreachable(f"zone {self._context.name} gave no answer within {limit:g} s")

    def _began(self, task: Task) -> float | None:
        """When the work began (wall time); None: it does not exist."""
        if task.mode is Mode.TRACK:
            began: float | None = task.created_at
        else:
            known = self._memory.jobs.get(task.uid)
            began = known.at if known is not None else task.started_at
        if began is not None and self._settings.forget_at_restart and began < self._opened_at:
            return None
        return began

    def _look(self, task: Task) -> Report:
        if self._memory.jobs and (known := self._memory.jobs.get(task.uid)) is not None and known.cancelled:
            return Report(Verdict.FAILED, message="Operation canceled", cancelled=True)
        began = self._began(task)
        if began is None:
            return Report(Verdict.VANISHED)
        script = self._script(task)
        percent = script.percent(self._context.clock.now() - began)
        if script.vanish_at is not None and percent >= script.vanish_at:
            return Report(Verdict.VANISHED)
        if script.fail_at is not None and percent >= script.fail_at:
            message = script.message or "failed, as its scenario says"
            return Report(Verdict.FAILED, progress=_progress(script.fail_at), message=message)
        verdict = Verdict.SUCCEEDED if percent >= 100 else Verdict.GOING_ON
        return Report(verdict, _progress(percent), size=script.size)

    def _script(self, task: Task) -> Script:
        for job in self._jobs:
            if _fits(task.action, job.action) and _fits(task.id, job.id):
                break
        else:
            job = UNWRITTEN
        return msgspec.structs.replace(job, **task.params) if task.params else job


class SimulatedAction:
    """One verb; they all behave as the scenario says."""

    params: type[Struct] = Script
    cancellable = True
    summary = "Pretend to work, as the zone's scenario says."

    def __init__(self, name: str, backend: SimulatedBackend) -> None:
        self.name = name
        self.start = backend.start
        self.cancel = backend.cancel
        self.forget = backend.forget

    def prepare(self, task: Task) -> dict[str, Any] | None:  # noqa: ARG002 - jobs are found by the task's uid
        return None


class Memory:
    """Which jobs were started, by uid. With a directory: in `jobs.json`, replaced atomically, so that they outlive the
    daemon; each start is also one line in `starts.log`, which is only ever appended to, to prove that none was repeated."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self.jobs: dict[str, Started] = {}
        if directory is not None and (directory / "jobs.json").exists():
            self.jobs = msgspec.json.decode((directory / "jobs.json").read_bytes(), type=dict[str, Started])

    def start(self, uid: str, now: float) -> None:
        self.jobs[uid] = Started(at=now)
        self._save()
        if self._directory is not None:
            with (self._directory / "starts.log").open("a") as file:
                file.write(f"{uid}\n")

    def cancel(self, uid: str, now: float) -> None:
        """Also for a job that was never started: then it never will be."""
        self.jobs[uid] = Started(at=self.jobs[uid].at if uid in self.jobs else now, cancelled=True)
        self._save()

    def forget(self, uid: str) -> None:
        if self.jobs.pop(uid, None) is not None:
            self._save()

    def _save(self) -> None:
        if self._directory is None:
            return
        temporary = self._directory / "jobs.json.new"
        with temporary.open("wb") as file:
            file.write(msgspec.json.encode(self.jobs))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._directory / "jobs.json")


def _fits(name: str, pattern: str) -> bool:
    return pattern == "*" or fnmatchcase(name, pattern)


def _progress(percent: float) -> Progress:
    return Progress(percent, int(TOTAL * percent / 100), TOTAL, "bytes")


def _read(scenario: str | list[Job], zone: str) -> list[Job]:
    """Raises ConfigError naming file and member."""
    if not isinstance(scenario, str):
        return scenario
    try:
        return msgspec.convert(tomllib.loads(Path(scenario).read_text()), Scenario).job
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise ConfigError([f"cannot read scenario {scenario!r} of zone {zone}: {error}"]) from error


FAMILY = Family(name="simulated", settings=SimulatedSettings, make=SimulatedBackend)
