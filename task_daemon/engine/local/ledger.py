"""How changes reach memory: durable ones on the thread that commits, the others at once, under one lock."""

import threading
from collections.abc import Callable, Collection, Mapping, Sequence

from task_daemon.core.measures import Durations
from task_daemon.core.model import Change, Delivery, Event, Task
from task_daemon.core.ports import Added, Beat, Clock, Watched
from task_daemon.engine.beats import Beats
from task_daemon.engine.live import LiveTasks, after, is_kept
from task_daemon.engine.local.tables import Applied, Tables

News = tuple[Sequence[Task], Sequence[Event], Sequence[Delivery]]
Report = tuple[list[bool], Sequence[Change], list[Applied | None]]


class Ledger:
    """The live tasks and the plan of their polls, with the lock that guards both. `watched`: uids whose changes in memory
    are told, through `tell`, on whatever thread they happen."""

    def __init__(
        self, clock: Clock, watched: Watched, tell: Callable[[Sequence[Task]], None], late: Durations | None = None
    ) -> None:
        self.lock = threading.Lock()
        self.live = LiveTasks()
        self.beats = Beats(late)
        self.touched: set[str] | None = set()
        """uids committed while the stored tasks are still being loaded: memory has the newest version. None afterwards."""
        self._clock = clock
        self._watched = watched
        self._tell = tell
        self._news: list[News] = []

    @property
    def has_news(self) -> bool:
        return bool(self._news)

    def news(self) -> list[News]:
        """What was committed since the last call."""
        with self.lock:
            news, self._news = self._news, []
        return news

    def _fenced(self, beat: Beat | None) -> bool:
        """Whether a poll may not write any more. The lock is held."""
        return beat is not None and not self.beats.is_newest(beat.zone, beat.token)

    def apply(self, tables: Tables, beat: Beat | None, changes: Sequence[Change]) -> Report:
        """On the thread that commits, inside the transaction."""
        with self.lock:
            if self._fenced(beat):
                return [False] * len(changes), (), []
        return [], changes, tables.apply([change for change in changes if change.durable], self.live.version)

    def remember(self, beat: Beat | None, changes: Sequence[Change]) -> list[bool]:
        """Changes that stay in memory until the next checkpoint. Any thread."""
        with self.lock:
            if self._fenced(beat):
                return [False] * len(changes)
            told = [self.live.swap(change) for change in changes]
        if self._watched.everything or self._watched:
            watched = [task for task in told if task is not None and self._is_watched(task)]
            if watched:
                self._tell(watched)
        return [task is not None for task in told]

    def _is_watched(self, task: Task) -> bool:
        return self._watched.everything or task.uid in self._watched

    def settle_added(self, result: tuple[list[Added], list[Event]], packed: Mapping[str, bytes]) -> None:
        """On the thread that commits, right afterwards. `packed`: what `live.pack` has made of the tasks so far, by uid."""
        answers, events = result
        fresh = [answer.task for answer in answers if not answer.replayed]
        self._note(fresh)
        now = self._clock.monotonic()
        with self.lock:
            # While the stored tasks are loaded, one may have been read between its commit and here.
            for alike in _alike(fresh if self.touched is None else [task for task in fresh if task.uid not in self.live]):
                self.live.add(alike, packed)
                self.beats.add_all(alike[0].zone, [task.uid for task in alike], alike[0].poll_interval, now)
            self._news.append((fresh, events, ()))

    def settle_applied(self, result: Report) -> None:
        """On the thread that commits, right afterwards: fills in the answers, in the order of the changes."""
        answers, changes, applied = result
        self._note([one.task for one in applied if one is not None])
        left = iter(applied)
        tasks: list[Task] = []
        events: list[Event] = []
        deliveries: list[Delivery] = []
        with self.lock:
            for change in changes:
                if not change.durable:
                    swapped = self.live.swap(change)
                    answers.append(swapped is not None)
                    if swapped is not None and self._is_watched(swapped):
                        tasks.append(swapped)
                    continue
                one = next(left)
                answers.append(one is not None)
                if one is not None:
                    tasks.append(self._keep_changed(one.task))
                    events += one.events
                    deliveries += one.deliveries
            if tasks:
                self._news.append((tasks, events, deliveries))

    def _keep_changed(self, task: Task) -> Task:
        """Progress may have been shown between the transaction and here; the lock is held."""
        current = self.live.version(task.uid)
        shown = after(task, current)
        self.keep(shown)
        if shown is not task and shown.uid in self.live:
            self.live.dirty.add(shown.uid)
        return shown

    def keep(self, task: Task) -> None:
        """A new version for memory and for the plan; the lock is held."""
        old = self.live.put(task)
        if not is_kept(task):
            self.beats.drop(task.zone, task.uid, task.poll_interval)
        elif old is None:
            self.beats.add(task.zone, task.uid, task.poll_interval, self._clock.monotonic())
        elif task.done and not old.done:
            self.beats.poke(task.zone, task.uid)  # something is left to clean up

    def _note(self, tasks: Sequence[Task]) -> None:
        touched = self.touched
        if touched is not None:
            touched.update(task.uid for task in tasks)


def _alike(tasks: Sequence[Task]) -> Collection[Sequence[Task]]:
    """New tasks by what they are counted and planned by: as a rule those of a batch are all alike."""
    if len(tasks) < 2:
        return [tasks] if tasks else []
    found: dict[object, list[Task]] = {}
    for task in tasks:
        likeness = task.zone, task.action, task.owner.uid, task.deadline_at, task.poll_interval
        found.setdefault(likeness, []).append(task)
    return found.values()
