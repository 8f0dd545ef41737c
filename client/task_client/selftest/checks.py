"""What must be true when the load is over: each broken promise is one sentence."""

import time
from collections import Counter
from collections.abc import Callable, Iterator

from task_client.client import Client
from task_client.selftest.load import Load
from task_client.selftest.receiver import MoodyReceiver
from task_client.types import Task

QUIET_WITHIN = 300.0  # seconds
LOOK_EVERY = 0.1
SHOWN = 5  # examples of each problem
ENDS = {"task.succeeded", "task.failed", "task.cancelled", "task.lost"}


def settle(client: Client) -> list[str]:
    """Wait until every task has ended and every callback is closed; problems if that does not come to pass."""
    problems = [
        _until("a task has not ended", lambda: next(iter(client.list(done=False, page_size=1)), None)),
        _until("a callback is still pending", lambda: next(iter(client.callbacks(state="pending", limit=1)), None)),
    ]
    return [problem for problem in problems if problem]


def broken_promises(client: Client, load: Load, receiver: MoodyReceiver, started: list[str]) -> list[str]:
    """After `settle`. `started`: the uids of work that was really started, one for each time."""
    tasks = {task.uid: task for task in client.list(page_size=500)}
    ends = Counter(event.uid for event in client.events() if event.type in ENDS)
    dead = client.callbacks(state="dead", limit=SHOWN)
    return [
        *load.problems,
        *_named("acknowledged but lost", (name for name, uid in load.acknowledged.items() if uid not in tasks)),
        *_named("never registered, and yet there", _phantoms(tasks, load)),
        *_named("ended in a wrong state", (f"{task.id} {task.state}" for task in tasks.values() if not _as_scripted(task))),
        *_named("an end that nobody was told of", (uid for uid in tasks if not receiver.told.get(uid))),
        *_named("told in a wrong way", _told_wrongly(tasks, receiver)),
        *_named("told of a task that is not there", (uid for uid in receiver.told if uid not in tasks)),
        *_named("not exactly one end in its history", (uid for uid in tasks if ends[uid] != 1)),
        *_named("started twice", (uid for uid, count in Counter(started).items() if count > 1)),
        *_named("a dead callback", (callback.id for callback in dead)),
    ]


def _phantoms(tasks: dict[str, Task], load: Load) -> Iterator[str]:
    known = set(load.names)
    acknowledged = set(load.acknowledged.values())
    for uid, task in tasks.items():
        if task.id not in known or (task.id in load.acknowledged and uid not in acknowledged):
            yield f"{uid} ({task.id})"


def _told_wrongly(tasks: dict[str, Task], receiver: MoodyReceiver) -> Iterator[str]:
    """One end is told under one webhook-id, with the type of the task's state."""
    for uid, task in tasks.items():
        told = receiver.told.get(uid, set())
        if len(told) > 1 or any(kind != f"task.{task.state}" for _, kind in told):
            yield f"{uid} ({task.state}): {sorted(told)}"


def _as_scripted(task: Task) -> bool:
    return task.state == ("failed" if task.id.startswith("bad") else "succeeded")


def _named(problem: str, found: Iterator[str] | list[str]) -> list[str]:
    """At most one sentence, with a few examples."""
    everything = list(found)
    more = f" and {len(everything) - SHOWN} more" if len(everything) > SHOWN else ""
    return [f"{problem}: {', '.join(everything[:SHOWN])}{more}"] if everything else []


def _until(what: str, left: Callable[[], object]) -> str | None:
    end = time.monotonic() + QUIET_WITHIN
    while (one := left()) is not None:
        if time.monotonic() > end:
            return f"{what} after {QUIET_WITHIN:g} s: {one}"
        time.sleep(LOOK_EVERY)
    return None
