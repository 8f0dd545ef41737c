"""Waiting by long-poll, across restarts of the daemon."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from task_client.errors import RequestRefused, TaskFailed, WaitTimeout
from task_client.types import FINAL, Event, Task

FOR_EVER = math.inf
LONGEST_HOLD = 60.0  # seconds the daemon is asked to hold one request; it accepts up to 300
LOOKS_PER_SECOND = 50  # at most, at the progress of tasks that are watched together
ENDS = frozenset(f"task.{state}" for state in FINAL) | {"task.resolved"}


class Get(Protocol):
    """`Client.get` with the seconds for which an absent daemon is waited for."""

    def __call__(
        self, uid: str, wait: float | None, until: str | None, etag: int | str | None, survive: float | None
    ) -> Task | None: ...


Page = Callable[[int, float, float | None], tuple[list[Event], int]]
"""Events after a cursor, holding the request and surviving an absent daemon for so many seconds; and the next cursor."""


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


def wait(get: Get, uid: str, timeout: float | None, raise_on_failure: bool) -> Task:
    return _wait(get, uid, Span(timeout), raise_on_failure)


def wait_all(get: Get, uids: Sequence[str], timeout: float | None, raise_on_failure: bool) -> list[Task]:
    """One after another: the last to end decides how long it takes, and at most one request is held at a time."""
    span = Span(timeout)
    return [_wait(get, uid, span, raise_on_failure) for uid in uids]


def wait_any(
    get: Get,
    page: Page,
    cursor: Callable[[], int],
    uids: Sequence[str],
    timeout: float | None,
    raise_on_failure: bool,
) -> list[Task]:
    """By the stream of events, so that one held request is enough for any number of tasks."""
    span = Span(timeout)
    wanted = set(uids)
    after: int | None = None
    while wanted:
        if after is None:  # the first time, and after an outage longer than what the daemon retains
            after = cursor()
            ended = _ended(get, uids, span)
        else:
            try:
                events, after = page(after, span.hold, span.left)
            except RequestRefused as refusal:
                if refusal.code != "cursor-expired":
                    raise
                after = None
                continue
            ended = _ended(get, [e.uid for e in events if e.uid in wanted and e.type in ENDS], span)
        if ended:
            return [judged(task, raise_on_failure) for task in ended]
        if span.left <= 0:
            raise WaitTimeout(uids, span.seconds)
    return []


def watch(get: Get, uid: str, timeout: float | None) -> Iterator[Task]:
    span = Span(timeout)
    task = get(uid, None, None, None, span.left)
    while True:
        if task is not None:
            yield task
            if task.done:
                return
            known = task.revision
        if span.left <= 0:
            raise WaitTimeout([uid], span.seconds)
        task = get(uid, span.hold, "change", known, span.left)
        if task is not None and task.revision == known and not task.done:
            task = None  # time was up without a change


def watch_many(
    get: Get,
    page: Page,
    cursor: Callable[[], int],
    uids: Sequence[str],
    timeout: float | None,
    every: float,
) -> Iterator[Task]:
    """State changes come by the stream of events, at once; progress by a look at each open task every so many seconds."""
    span = Span(timeout)
    known: dict[str, int] = {}
    open_ = dict.fromkeys(uids)
    after: int | None = None
    look_again = 0.0
    while open_:
        try:
            if after is None:
                after, look_again = cursor(), 0.0
                events: list[Event] = []
            else:
                events, after = page(after, min(max(0.0, look_again - time.monotonic()), span.left), span.left)
        except RequestRefused as refusal:
            if refusal.code != "cursor-expired":
                raise
            after = None
            continue
        touched = dict.fromkeys(event.uid for event in events if event.uid in open_)
        if time.monotonic() >= look_again:
            touched = dict(open_)
            look_again = time.monotonic() + max(every, len(open_) / LOOKS_PER_SECOND)
        for uid in touched:
            task = get(uid, None, None, known.get(uid), span.left)
            if task is None or task.revision == known.get(uid):
                continue
            known[uid] = task.revision
            if task.done:
                del open_[uid]
            yield task
        if open_ and span.left <= 0:
            raise WaitTimeout(list(open_), span.seconds)


def _wait(get: Get, uid: str, span: Span, raise_on_failure: bool) -> Task:
    while True:
        task = get(uid, span.hold, None, None, span.left)
        if task is not None and task.done:
            return judged(task, raise_on_failure)
        if span.left <= 0:
            raise WaitTimeout([uid], span.seconds)


def _ended(get: Get, uids: Sequence[str], span: Span) -> list[Task]:
    found = (get(uid, None, None, None, span.left) for uid in dict.fromkeys(uids))
    return [task for task in found if task is not None and task.done]


def judged(task: Task, raise_on_failure: bool) -> Task:
    """The task. Raises TaskFailed if that is asked for and it has not succeeded."""
    if raise_on_failure and not task.succeeded:
        raise TaskFailed(task)
    return task
