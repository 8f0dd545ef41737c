"""One poll of one zone: start what is to be started, cancel, look, write down what was seen, clean up.

The same code runs after a crash as before it: what is to be done for a task follows from what is on disk about it, and
from nothing else. `queued` run tasks are started (or adopted: `launched` says that they may exist), `running` ones are
looked at, `cancelling` ones are cancelled again, ended ones that are not `tidy` are cleaned up.
"""

import logging
from collections.abc import Callable, Mapping, Sequence

from task_daemon.core import transitions
from task_daemon.core.backoff import before_poll
from task_daemon.core.errors import BackendUnreachable, StartRefused, WorkGone
from task_daemon.core.model import Change, Mode, Report, State, Task
from task_daemon.core.ports import Again, Beat, Clock, Engine, Idle, Zone
from task_daemon.tracking.notify import Notices
from task_daemon.tracking.zones import ZoneBook

log = logging.getLogger("task_daemon.tracking")

STARTS_PER_POLL = 16  # so that a crowd of new tasks does not keep the running ones waiting


class Poller:
    """`Handlers.poll` of the engine; runs on worker threads, one zone never on two."""

    def __init__(self, engine: Engine, zones: Mapping[str, Zone], notices: Notices, book: ZoneBook, clock: Clock) -> None:
        self._engine = engine
        self._zones = zones
        self._notices = notices
        self._book = book
        self._clock = clock

    def __call__(self, beat: Beat) -> Again | Idle:
        zone = self._zones.get(beat.zone)
        if zone is None:
            return Idle()
        tasks = self._engine.batch(beat)
        live = [task for task in tasks if not task.done]
        ended = [task for task in tasks if task.done and not task.tidy]
        to_start = [task for task in live if task.mode is Mode.RUN and task.state is State.QUEUED]
        try:
            started = self._start(beat, zone, to_start[:STARTS_PER_POLL])
            self._cancel(beat, zone, [task for task in live if task.state is State.CANCELLING])
            waiting = {task.uid for task in to_start}
            ended += self._look(beat, zone, [task for task in live if task.uid not in waiting] + started)
            self._forget(beat, zone, ended)
        except BackendUnreachable as error:
            failures = self._book.failed(zone.name, str(error))
            if failures == 1:
                log.warning("cannot poll zone %s: %s", zone.name, error, extra={"zone": zone.name})
            return Again(before_poll(failures, zone.poll_interval))
        return Again(0.0) if len(to_start) > STARTS_PER_POLL else Again()

    def write(self, beat: Beat | None, changes: Sequence[Change]) -> list[Task]:
        """Write changes with their deliveries; the tasks whose change was taken."""
        if not changes:
            return []
        taken = self._engine.report(beat, [self._notices.attach(change) for change in changes])
        written = [change for change, ok in zip(changes, taken, strict=True) if ok]
        for change in written:
            _say(change)
        return [change.task for change in written]

    def expire(self, tasks: Sequence[Task]) -> None:
        """`Handlers.expire` of the engine: end tasks whose deadline has passed."""
        now = self._clock.now()
        changes = (transitions.expire(task, now, task.zone in self._zones) for task in tasks)
        self.write(None, [change for change in changes if change is not None])

    # ------------------------------------------------------------------ the five steps

    def _start(self, beat: Beat, zone: Zone, tasks: Sequence[Task]) -> list[Task]:
        """Start, or after a crash adopt, queued run tasks; the intent is on disk before the first effect (I2)."""
        launched = [task for task in tasks if task.launched]
        intents: list[Change] = []
        for task in tasks:
            if not task.launched:
                intents += self._guarded(beat, zone, task, lambda t: self._prepare(zone, t))
        launched += self.write(beat, [change for change in intents if not change.task.done])
        self.write(beat, [change for change in intents if change.task.done])
        looking: list[Task] = []
        for task in launched:
            ends = self._guarded(beat, zone, task, lambda t: self._run(zone, t))
            looking += [now for now in (self.write(beat, ends) if ends else [task]) if not now.done]
            if ends and ends[0].task.done and not ends[0].task.tidy:
                self._forget(beat, zone, [ends[0].task])
        return looking

    def _prepare(self, zone: Zone, task: Task) -> list[Change]:
        return [transitions.launch(task, zone.backend.actions[task.action].prepare(task), self._clock.now())]

    def _run(self, zone: Zone, task: Task) -> list[Change]:
        report = zone.backend.actions[task.action].start(task)
        change = transitions.apply(task, report, self._clock.now(), zone.stall_after) if report else None
        return [] if change is None else [change]

    def _guarded(self, beat: Beat, zone: Zone, task: Task, step: Callable[[Task], list[Change]]) -> list[Change]:
        """One step of starting one task; a refusal ends this task, a surprise is tried again with the next poll."""
        try:
            self._ask(beat, zone)
            changes = step(task)
        except StartRefused as error:
            changes = [transitions.start_failed(task, error.kind, str(error), self._clock.now())]
        except WorkGone as error:
            changes = [transitions.work_gone(task, str(error), self._clock.now())]
        except BackendUnreachable:
            raise
        except Exception as error:
            log.exception("cannot start task %s (%s): it is tried again", task.uid, task.action, extra={"uid": task.uid})
            self._book[zone.name].errors.append((self._clock.now(), f"task {task.uid}: {error!r}"))
            changes = []
        self._book.answered(zone.name)
        return changes

    def _cancel(self, beat: Beat, zone: Zone, tasks: Sequence[Task]) -> None:
        for task in tasks:
            self._attempt(beat, zone, task, "cancel", zone.backend.actions[task.action].cancel)

    def _look(self, beat: Beat, zone: Zone, tasks: Sequence[Task]) -> list[Task]:
        """Poll, write down what changed; returns the tasks that have ended and need cleaning up."""
        if not tasks:
            return []
        reports = self._ask_about(beat, zone, tasks)
        now = self._clock.now()
        changes: list[Change] = []
        for task in tasks:
            report = reports.get(task.uid)
            if report is None:
                continue
            change = transitions.apply(task, report, now, zone.stall_after)
            if change is not None:
                changes.append(change)
        written = self.write(beat, changes)
        return [task for task in written if task.done and not task.tidy]

    def _forget(self, beat: Beat, zone: Zone, tasks: Sequence[Task]) -> None:
        for task in tasks:
            if self._attempt(beat, zone, task, "clean up after", zone.backend.actions[task.action].forget):
                self.write(beat, [transitions.tidied(task, self._clock.now())])

    # ------------------------------------------------------------------ asking the backend

    def _ask(self, beat: Beat, zone: Zone) -> None:
        beat.touch()
        self._book.asked(zone.name)

    def _attempt(self, beat: Beat, zone: Zone, task: Task, what: str, call: Callable[[Task], None]) -> bool:
        self._ask(beat, zone)
        try:
            call(task)
        except BackendUnreachable:
            raise
        except Exception as error:
            log.warning("cannot %s task %s: %s; it is tried again", what, task.uid, error, extra={"uid": task.uid})
            self._book[zone.name].errors.append((self._clock.now(), f"cannot {what} task {task.uid}: {error}"))
            return False
        finally:
            self._book[zone.name].asked_at = None
        self._book.answered(zone.name)
        return True

    def _ask_about(self, beat: Beat, zone: Zone, tasks: Sequence[Task]) -> Mapping[str, Report]:
        """One poll for all tasks. If one of them makes the backend fall over, halve until it stands alone (F5)."""
        self._ask(beat, zone)
        try:
            reports = zone.backend.poll(tasks)
        except BackendUnreachable:
            raise
        except Exception as error:
            if len(tasks) == 1:
                task = tasks[0]
                log.exception("cannot poll task %s (%s)", task.uid, task.action, extra={"uid": task.uid})
                self._book[zone.name].errors.append((self._clock.now(), f"task {task.uid}: {error!r}"))
                self._book[zone.name].asked_at = None
                return {}
            half = len(tasks) // 2
            return {**self._ask_about(beat, zone, tasks[:half]), **self._ask_about(beat, zone, tasks[half:])}
        self._book.answered(zone.name)
        return reports


def _say(change: Change) -> None:
    """One line for each end; everything else is in the task's events."""
    task = change.task
    if task.done and not change.before.done:
        why = f": {task.error.kind}: {task.error.message}" if task.error else ""
        log.info("task %s (%s %s) %s%s", task.uid, task.action, task.id, task.state.value, why, extra={"uid": task.uid})
