"""One poll of one zone: start what is to be started, cancel, look, write down what was seen, clean up.

The same code runs after a crash as before it: what is to be done for a task follows from what is on disk about it, and
from nothing else. `queued` run tasks are started (or adopted: `launched` says that they may exist), `running` ones are
looked at, `cancelling` ones are cancelled again, ended ones that are not `tidy` are cleaned up.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from msgspec import json
from msgspec.structs import replace

from task_daemon.core import crash, transitions
from task_daemon.core.backoff import before_poll
from task_daemon.core.errors import BackendError, BackendUnreachable, StartRefused, WorkGone
from task_daemon.core.model import Change, Mode, Report, State, Task, Verdict
from task_daemon.core.ports import Action, Again, Beat, Clock, Engine, Idle, Zone
from task_daemon.tracking.notify import Notices
from task_daemon.tracking.zones import ZoneBook

log = logging.getLogger("task_daemon.tracking")
T = TypeVar("T")
_encode = json.Encoder().encode
_decode = json.Decoder(Report).decode

LARGEST_REPORT = 65_536  # bytes of JSON; it goes into the task, which is written whole with each of its events
LONGEST_MESSAGE = 4096  # characters
ASKED_ALONE = 16  # tasks in one poll over which the backend raised before
GIVEN_UP_AFTER = 64  # calls in a row that raised: the rest of the tasks is asked about with the next poll
AT_ONCE = 64  # tasks in one commit: while the next ones are written the callbacks of these are sent, and others write, too
SAID_AT_ONCE = 16  # of those in one commit that succeeded, tasks with a line of their own in the log
ONE_BY_ONE = 16  # tasks looked at before what was seen is written down, where each takes a call of its own
STARTS_PER_POLL = 16  # so that a crowd of new tasks does not keep the running ones waiting


class Poller:
    """`Handlers.poll` of the engine; runs on worker threads, one zone never on two."""

    def __init__(self, engine: Engine, zones: Mapping[str, Zone], notices: Notices, book: ZoneBook, clock: Clock) -> None:
        self._engine = engine
        self._zones = zones
        self._notices = notices
        self._book = book
        self._clock = clock
        self._tried: dict[str, dict[str, int]] = {}  # by zone, uid: token of the last beat that tried to start it
        self._suspects: dict[str, dict[str, int]] = {}  # by zone, uid: token of the last beat in which asking about it raised

    def __call__(self, beat: Beat) -> Again | Idle:
        zone = self._zones.get(beat.zone)
        if zone is None:
            return Idle()
        began, failures = self._clock.monotonic(), self._book[zone.name].failures
        outcome = "raised"
        try:
            again = self._poll(beat, zone)
            outcome = "unreachable" if self._book[zone.name].failures > failures else "answered"
        finally:
            self._engine.measures.polled(zone.name, zone.kind, outcome, self._clock.monotonic() - began)
        return again

    def _poll(self, beat: Beat, zone: Zone) -> Again:
        tasks = self._engine.batch(beat)
        to_start: list[Task] = []
        to_look_at: list[Task] = []
        ended: list[Task] = []
        for task in tasks:
            if task.done:
                if not task.tidy:
                    ended.append(task)
            elif task.state is State.QUEUED and task.mode is Mode.RUN:
                to_start.append(task)
            else:
                to_look_at.append(task)
        try:
            chosen, more = self._choose(beat, to_start)
            going, over = self._start(beat, zone, chosen)
            self._cancel(beat, zone, [task for task in to_look_at if task.state is State.CANCELLING])
            over += self._look(beat, zone, to_look_at + going)
            self._forget(beat, zone, ended + over)
        except BackendUnreachable as error:
            text = _readable(error)
            failures = self._book.failed(zone.name, text)
            if failures == 1:
                log.warning("cannot poll zone %s: %s", zone.name, text, extra={"zone": zone.name})
            return Again(before_poll(failures, zone.poll_interval))
        if tasks and self._book.polled(zone.name):
            log.info("zone %s answers again", zone.name, extra={"zone": zone.name})
        return Again(0.0) if more else Again()

    def write(self, beat: Beat | None, changes: Sequence[Change]) -> list[Task]:
        """Write changes with their deliveries; the tasks whose change was taken."""
        if not changes:
            return []
        taken = self._engine.report(beat, [self._notices.attach(change) if change.events else change for change in changes])
        written = [change.task for change, ok in zip(changes, taken, strict=True) if ok]
        _say([change.task for change, ok in zip(changes, taken, strict=True) if ok and change.events and _ends(change)])
        return written

    def expire(self, tasks: Sequence[Task]) -> None:
        """`Handlers.expire` of the engine: end tasks whose deadline has passed."""
        now = self._clock.now()
        changes = (transitions.expire(task, now, task.zone in self._zones) for task in tasks)
        self.write(None, [change for change in changes if change is not None])

    # ------------------------------------------------------------------ the five steps

    def _choose(self, beat: Beat, queued: Sequence[Task]) -> tuple[list[Task], bool]:
        """The tasks to start now: those never tried first, oldest first, so that some that cannot be started keep nobody
        waiting. And whether others were never tried: only they are worth another poll at once."""
        tried = self._tried.get(beat.zone, {})
        order = sorted(queued, key=lambda task: (tried.get(task.uid, 0), task.uid))
        chosen, rest = order[:STARTS_PER_POLL], order[STARTS_PER_POLL:]
        self._tried[beat.zone] = {task.uid: tried[task.uid] for task in rest if task.uid in tried} | {
            task.uid: beat.token for task in chosen
        }
        return chosen, any(task.uid not in tried for task in rest)

    def _start(self, beat: Beat, zone: Zone, tasks: Sequence[Task]) -> tuple[list[Task], list[Task]]:
        """Start, or after a crash adopt, queued run tasks; the intent is on disk before the first effect (I2).

        Returns the tasks to look at and those that have ended and need cleaning up. One whose start raised something
        unforeseen is neither: whether its work exists is not known before a start comes through.
        """
        intents = [self._guarded(beat, zone, task, self._prepare) for task in tasks if not task.launched]
        if intents:
            crash.reach("prepare.before-record")
        written = self.write(beat, [change for change in intents if change is not None])
        if written:
            crash.reach("prepare.after-record")
        launched = [task for task in tasks if task.launched] + [task for task in written if not task.done]
        going: list[Task] = []
        ended: list[Task] = []
        for task in launched:
            change = self._guarded(beat, zone, task, self._run)
            if change is None:
                continue
            for now in [task] if change.task is task else self.write(beat, [change]):
                (ended if now.done else going).append(now)
        return going, ended

    def _prepare(self, zone: Zone, task: Task) -> Change:
        handle = _action(zone, task).prepare(task)
        return transitions.launch(task, _sound(Report(Verdict.UNKNOWN, handle=handle)).handle, self._clock.now())

    def _run(self, zone: Zone, task: Task) -> Change:
        crash.reach("start.before")
        report = _action(zone, task).start(task)
        crash.reach("start.after")
        change = None if report is None else transitions.apply(task, _sound(report), self._clock.now(), zone.stall_after)
        return change or Change(before=task, task=task)

    def _guarded(self, beat: Beat, zone: Zone, task: Task, step: Callable[[Zone, Task], Change]) -> Change | None:
        """One step of starting one task; a refusal ends this task. None: a surprise, tried again with the next poll."""
        try:
            return self._ask(beat, zone, lambda: step(zone, task))
        except BackendUnreachable:
            raise
        except StartRefused as error:
            change = transitions.start_failed(task, str(error.kind), _readable(error), self._clock.now())
        except WorkGone as error:
            change = transitions.work_gone(task, _readable(error), self._clock.now())
        except Exception as error:
            self._surprised(zone, task, "start", error)
            return None
        self._book.answered(zone.name)
        return change

    def _cancel(self, beat: Beat, zone: Zone, tasks: Sequence[Task]) -> None:
        for task in tasks:
            self._attempt(beat, zone, task, "cancel", lambda task: _action(zone, task).cancel(task))

    def _look(self, beat: Beat, zone: Zone, tasks: Sequence[Task]) -> list[Task]:
        """Poll, write down what changed; returns the tasks that have ended and need cleaning up."""
        if not tasks:
            return []
        since = self._book.unseen_since(zone.name)
        size = ONE_BY_ONE if zone.one_by_one else len(tasks)
        pieces = (self._look_at(beat, zone, tasks[start : start + size], since) for start in range(0, len(tasks), size))
        return [task for piece in pieces for task in piece]

    def _look_at(self, beat: Beat, zone: Zone, tasks: Sequence[Task], since: float | None) -> list[Task]:
        reports = self._ask_about(beat, zone, tasks)
        ended: list[Task] = []
        for start in range(0, len(tasks), AT_ONCE):
            if start:
                beat.give_way()
            ended += self._write_down(beat, zone, tasks[start : start + AT_ONCE], reports, since)
        return ended

    def _write_down(
        self, beat: Beat, zone: Zone, tasks: Sequence[Task], reports: Mapping[str, Report], since: float | None
    ) -> list[Task]:
        now, stall_after = self._clock.now(), zone.stall_after
        changes: list[Change] = []
        for task in tasks:
            report = reports.get(task.uid)
            if report is None:
                continue
            try:
                change = transitions.apply(task, _sound(report), now, stall_after)
            except Exception as error:  # a report that makes no sense is the fault of this task alone
                self._surprised(zone, task, "understand the report of", error)
                continue
            if change is not None:
                changes.append(change)
        ending = any(change.events and _ends(change) for change in changes)
        if ending:
            crash.reach("end.before-record")
        written = self.write(beat, changes)
        ended = [task for task in written if task.done] if ending else []
        for task in ended:
            self._measure_detection(zone, task, since)
        beat.touch()
        return [task for task in ended if not task.tidy]

    def _measure_detection(self, zone: Zone, task: Task, since: float | None) -> None:
        now, interval = self._clock.monotonic(), task.poll_interval or zone.poll_interval
        at_most = interval if since is None else now - since
        self._engine.measures.detection.add(at_most)

    def _forget(self, beat: Beat, zone: Zone, tasks: Sequence[Task]) -> None:
        for task in tasks:
            crash.reach("forget.before")
            if self._attempt(beat, zone, task, "clean up after", lambda task: _action(zone, task).forget(task)):
                crash.reach("forget.after")
                self.write(beat, [transitions.tidied(task, self._clock.now())])

    # ------------------------------------------------------------------ asking the backend

    def _ask(self, beat: Beat, zone: Zone, call: Callable[[], T]) -> T:
        """Every call into a backend goes through here, so that one that never comes back is seen. What would end the process
        or the thread (SystemExit and its like) is an error of the backend like any other."""
        beat.touch()
        began = self._book.asked(zone.name)
        try:
            answer = call()
        except Exception:
            raise
        except BaseException as error:
            raise RuntimeError(f"the backend raised {type(error).__name__}") from error
        finally:
            beat.waited(self._clock.monotonic() - began)
        self._book.answered(zone.name)
        return answer

    def _attempt(self, beat: Beat, zone: Zone, task: Task, what: str, call: Callable[[Task], None]) -> bool:
        try:
            self._ask(beat, zone, lambda: call(task))
        except BackendUnreachable:
            raise
        except BackendError as error:  # "not yet", said by the backend
            text = f"cannot {what} task {task.uid}: {_readable(error)}"
            log.warning("%s; it is tried again", text, extra=_about(task))
            self._book.raised(zone.name, text)
            return False
        except Exception as error:
            self._surprised(zone, task, what, error)
            return False
        return True

    def _ask_about(self, beat: Beat, zone: Zone, tasks: Sequence[Task]) -> Mapping[str, Report]:
        """One poll for all tasks. If one of them makes the backend fall over, halve until it stands alone (F5). From then on it
        is asked about alone, a few in each poll, until it gets an answer: what halving costs is paid once."""
        suspects = self._suspects.setdefault(zone.name, {})
        if not suspects:
            return self._ask_in_parts(beat, zone, [tasks])
        for uid in [uid for uid in suspects if self._engine.get(uid) is None]:
            del suspects[uid]
        alone = sorted((task for task in tasks if task.uid in suspects), key=lambda task: suspects[task.uid])[:ASKED_ALONE]
        reports = self._ask_in_parts(beat, zone, [[task for task in tasks if task.uid not in suspects]])
        answers = self._ask_in_parts(beat, zone, [[task] for task in alone])
        if len(alone) == ASKED_ALONE and all(task.uid not in suspects for task in alone):
            suspects.clear()  # the backend is well again
        return reports | answers

    def _ask_in_parts(self, beat: Beat, zone: Zone, parts: list[Sequence[Task]]) -> dict[str, Report]:
        suspects = self._suspects[zone.name]
        reports: dict[str, Report] = {}
        raised = 0  # in a row
        while parts:
            if raised == GIVEN_UP_AFTER:
                self._book.raised(zone.name, f"the backend raised {raised} times in a row; the others wait for the next poll")
                break
            part = parts.pop()
            if not part:
                continue
            try:
                reports |= self._ask(beat, zone, partial(_poll, zone, part))
            except BackendUnreachable:
                raise
            except Exception as error:
                raised += 1
                if len(part) > 1:
                    half = len(part) // 2
                    parts += [part[half:], part[:half]]
                    continue
                suspects[part[0].uid] = beat.token
                self._surprised(zone, part[0], "poll", error)
            else:
                raised = 0
                if len(part) == 1:
                    suspects.pop(part[0].uid, None)
        return reports

    def _surprised(self, zone: Zone, task: Task, what: str, error: Exception) -> None:
        """The backend raised what no contract foresees: written down, and tried again with the next poll."""
        text = f"cannot {what} task {task.uid}: {_readable(error, repr)}"
        self._book.raised(zone.name, text)
        log.error("%s; it is tried again", text, exc_info=error, extra=_about(task))


def _ends(change: Change) -> bool:
    return change.task.done and not change.before.done


def _poll(zone: Zone, tasks: Sequence[Task]) -> dict[str, Report]:
    return dict(zone.backend.poll(tasks))


def _action(zone: Zone, task: Task) -> Action:
    """Raises LookupError if the zone was configured anew and does not know the action any more."""
    action = zone.backend.actions.get(task.action)
    if action is None:
        raise LookupError(f"zone {zone.name!r} knows no action {task.action!r} any more")
    return action


def _sound(report: Report) -> Report:
    """A report as it will be read back from disk. What could not be raises here, AttributeError, TypeError, ValueError or
    RecursionError, and not in the store, where a whole batch is one operation."""
    if isinstance(report.message, str):
        report = replace(report, message=_readable(report.message))
    body = _encode(report)
    if len(body) > LARGEST_REPORT:
        raise ValueError(f"a report of {len(body)} bytes; at most {LARGEST_REPORT} are taken")
    return _decode(body)


def _readable(said: BaseException | str, how: Callable[[Any], str] = str) -> str:
    """What a backend says, of bounded length, and without the halves of surrogate pairs that file names come with."""
    try:
        text = how(said)
    except Exception:
        text = f"{type(said).__name__} (it cannot be shown)"
    return text[:LONGEST_MESSAGE].encode(errors="replace").decode()


def _say(ended: Sequence[Task]) -> None:
    """One line for each end; of a crowd that succeeded at once, a few lines and one that counts the others. Everything else is
    in the tasks' events."""
    everything = log.isEnabledFor(logging.DEBUG)
    crowd = [] if everything else [task for task in ended if task.state is State.SUCCEEDED][SAID_AT_ONCE:]
    left_out = {task.uid for task in crowd}
    for task in ended:
        if task.uid not in left_out:
            why = f": {task.error.kind}: {task.error.message}" if task.error else ""
            log.info("task %s (%s %s) %s%s", task.uid, task.action, task.id, task.state.value, why, extra=_about(task))
    if crowd:
        text = '%d more tasks of zone %s succeeded; /v1/events has them, log_level = "debug" shows each'
        log.info(text, len(crowd), crowd[0].zone, extra={"zone": crowd[0].zone})


def _about(task: Task) -> dict[str, str]:
    """What a log line about a task has for machines."""
    return {"uid": task.uid, "zone": task.zone, "action": task.action}
