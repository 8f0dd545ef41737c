"""Waiting by long-poll, across restarts of the daemon: what is asked next, and what the answers mean.

Each way of waiting is a plan: a generator that yields what is to be asked and is sent the answer, and yields the tasks that are
to be told. Who carries it out decides whether asking blocks (`Client`) or is awaited (`AsyncClient`).
"""

import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from task_client.errors import RequestRefused, TaskFailed, WaitTimeout
from task_client.types import FINAL, Event, Task

FOR_EVER = math.inf
LONGEST_HOLD = 60.0  # seconds the daemon is asked to hold one request; it accepts up to 300
LOOKS_PER_SECOND = 50  # at most, at the progress of tasks that are watched together
ENDS = frozenset(f"task.{state}" for state in FINAL) | {"task.resolved"}


@dataclass(frozen=True, slots=True)
class Look:
    """At one task, as `Client.get`; an absent daemon is waited for, for `survive` seconds. Answered by the task, or None."""

    uid: str
    survive: float
    wait: float | None = None
    until: str | None = None
    etag: int | None = None


@dataclass(frozen=True, slots=True)
class After:
    """Events after a cursor. Answered by them and the next cursor, which is None when what came after is not retained."""

    cursor: int
    hold: float
    survive: float


@dataclass(frozen=True, slots=True)
class Latest:
    """Answered by the cursor of now."""


Question = Look | After | Latest
Result = TypeVar("Result")
Plan = Generator[Question | Task, Any, Result]


class Span:
    """How much of a time-out is left; None = no limit."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = FOR_EVER if seconds is None else seconds
        self._end = time.monotonic() + self.seconds

    @property
    def left(self) -> float:
        return max(0.0, self._end - time.monotonic())

    @property
    def hold(self) -> float:
        """Seconds for which the daemon may hold one request."""
        return min(LONGEST_HOLD, self.left)


# ---------------------------------------------------------------------- carrying out


class Course(Generic[Result]):
    """A plan that is being carried out. `result`: what it has come to, at its end."""

    result: Result

    def __init__(self, plan: Plan[Result]) -> None:
        self._plan = plan

    def step(self, answer: Any = None) -> Question | Task | None:
        """What comes after this answer to the last question: a question, a task to be told, or None at the end."""
        try:
            return self._plan.send(answer)
        except StopIteration as end:
            self.result = end.value
            return None


def told(course: Course[Any], ask: Callable[[Question], Any]) -> Iterator[Task]:
    """The tasks that are told on the way, where asking blocks."""
    step = course.step()
    while step is not None:
        if isinstance(step, Task):
            yield step
            step = course.step()
        else:
            step = course.step(ask(step))


def result_of(plan: Plan[Result], ask: Callable[[Question], Any]) -> Result:
    course = Course(plan)
    for _ in told(course, ask):
        pass
    return course.result


# ---------------------------------------------------------------------- the plans


def wait(uid: str, timeout: float | None, raise_on_failure: bool) -> Plan[Task]:
    return (yield from _wait(uid, Span(timeout), raise_on_failure))


def wait_all(uids: Sequence[str], timeout: float | None, raise_on_failure: bool) -> Plan[list[Task]]:
    """One after another: the last to end decides how long it takes, and at most one request is held at a time."""
    span = Span(timeout)
    ended = []
    for uid in uids:
        ended.append((yield from _wait(uid, span, raise_on_failure)))  # noqa: PERF401 - no generator can be asked in there
    return ended


def wait_any(uids: Sequence[str], timeout: float | None, raise_on_failure: bool) -> Plan[list[Task]]:
    """By the stream of events, so that one held request is enough for any number of tasks."""
    span = Span(timeout)
    wanted = set(uids)
    after: int | None = None
    while wanted:
        if after is None:  # the first time, and after an outage longer than what the daemon retains
            after = yield Latest()
            looked_at: Iterable[str] = uids
        else:
            events: list[Event]
            events, after = yield After(after, span.hold, span.left)
            looked_at = [event.uid for event in events if event.uid in wanted and event.type in ENDS]
        ended = []
        for uid in dict.fromkeys(looked_at):
            task: Task | None = yield Look(uid, span.left)
            if task is not None and task.done:
                ended.append(task)
        if ended:
            return [judged(task, raise_on_failure) for task in ended]
        if span.left <= 0:
            raise WaitTimeout(uids, span.seconds)
    return []


def watch(uid: str, timeout: float | None) -> Plan[None]:
    span = Span(timeout)
    known: int | None = None
    task: Task | None = yield Look(uid, span.left)
    while True:
        if task is not None and task.revision != known:  # else time was up without a change
            known = task.revision
            yield task
        if task is not None and task.done:
            return
        if span.left <= 0:
            raise WaitTimeout([uid], span.seconds)
        task = yield Look(uid, span.left, span.hold, "change", known)


def watch_many(uids: Sequence[str], timeout: float | None, every: float) -> Plan[None]:
    """State changes come by the stream of events, at once; progress by a look at each open task every so many seconds."""
    span = Span(timeout)
    known: dict[str, int] = {}
    open_ = dict.fromkeys(uids)
    after: int | None = None
    look_again = 0.0
    while open_:
        events: list[Event] = []
        if after is None:  # the first time, and after an outage longer than what the daemon retains
            after, look_again = (yield Latest()), 0.0
        else:
            hold = min(max(0.0, look_again - time.monotonic()), span.left)
            events, after = yield After(after, hold, span.left)
        touched = dict.fromkeys(event.uid for event in events if event.uid in open_)
        if time.monotonic() >= look_again:
            touched = dict(open_)
            look_again = time.monotonic() + max(every, len(open_) / LOOKS_PER_SECOND)
        for uid in touched:
            task: Task | None = yield Look(uid, span.left, etag=known.get(uid))
            if task is None or task.revision == known.get(uid):
                continue
            known[uid] = task.revision
            if task.done:
                del open_[uid]
            yield task
        if open_ and span.left <= 0:
            raise WaitTimeout(list(open_), span.seconds)


def nothing_retained(refusal: RequestRefused) -> tuple[list[Event], None]:
    """The answer to `After` when what came after the cursor is not there any more. Raises any other refusal."""
    if refusal.code != "cursor-expired":
        raise refusal
    return [], None


def _wait(uid: str, span: Span, raise_on_failure: bool) -> Plan[Task]:
    while True:
        task: Task | None = yield Look(uid, span.left, span.hold)
        if task is not None and task.done:
            return judged(task, raise_on_failure)
        if span.left <= 0:
            raise WaitTimeout([uid], span.seconds)


def judged(task: Task, raise_on_failure: bool) -> Task:
    """The task. Raises TaskFailed if that is asked for and it has not succeeded."""
    if raise_on_failure and not task.succeeded:
        raise TaskFailed(task)
    return task
