"""Following tasks to their end: live bars on a terminal, a line for each change elsewhere."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import click

from task_client.cli.frame import STATE_CODES, Settings
from task_client.cli.output import left, print_line, rate, summary
from task_client.client import Client
from task_client.types import Task

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

ORDER = (1, 4, 6, 0)  # of several exit codes, the first of these counts
ROOM = 3  # lines of the terminal that are no bars


def follow(
    settings: Settings,
    client: Client,
    tasks: Sequence[Task],
    timeout: float | None,
    changes: bool = True,
    until_any: bool = False,
) -> int:
    """Print what happens until all have ended, or the first; answers the exit code of their states. Raises WaitTimeout.

    `changes`: print a line for each change, not only for each end.
    """
    if not tasks:
        click.echo("taskctl: there is no such task that has not ended; `taskctl list` shows the others", err=True)
        return 0
    uids = [task.uid for task in tasks]
    stream = client.watch(uids[0], timeout) if len(uids) == 1 else client.watch_many(uids, timeout)
    ended: list[Task] = []
    shown = _shown(settings, tasks, _until(stream, until_any, ended), changes)
    for task in shown:
        if settings.json or settings.format is not None:
            print_line(settings, task.raw, (), Task.__dataclass_fields__)
        else:
            click.echo(summary(task))
    codes = {STATE_CODES.get(task.state, 1) for task in ended}
    return next(code for code in ORDER if code in codes)


def _until(stream: Iterable[Task], until_any: bool, ended: list[Task]) -> Iterator[Task]:
    """The stream up to its end or the first end in it; what has ended is put into `ended`."""
    for task in stream:
        if task.done:
            ended.append(task)
        yield task
        if until_any and task.done:
            return


def _shown(settings: Settings, tasks: Sequence[Task], stream: Iterator[Task], changes: bool) -> Iterator[Task]:
    """What is to be printed; bars are drawn aside."""
    if settings.json or settings.format:
        return (task for task in stream if changes or task.done)
    if sys.stdout.isatty():
        return _bars(tasks, stream)
    return _lines(stream) if changes else (task for task in stream if task.done)


def _lines(stream: Iterator[Task]) -> Iterator[Task]:
    """Ends, and changes that are worth a line: progress by less than a percent is not."""
    told: dict[str, object] = {}
    for task in stream:
        percent = task.progress.percent
        now = (task.state, task.flags, task.progress.message, None if percent is None else int(percent))
        if task.done or told.get(task.uid) != now:
            yield task
        told[task.uid] = now


def _bars(tasks: Sequence[Task], stream: Iterator[Task]) -> Iterator[Task]:
    """Answers what has ended, to be printed above the bars. As many bars as there is room for; the next ones take the places
    of those that have ended."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[pace]}", markup=False),
        TimeElapsedColumn(),
    )
    console = Console()
    waiting = {task.uid: task for task in tasks if not task.done}
    with Progress(*columns, console=console, transient=True) as progress:
        bars: dict[str, TaskID] = {}
        for task in stream:
            if task.done:
                waiting.pop(task.uid, None)
                if task.uid in bars:
                    progress.remove_task(bars.pop(task.uid))
                yield task
            else:
                waiting[task.uid] = task
            for each in waiting.values():
                if len(bars) >= max(1, console.height - ROOM):
                    break
                if each.uid not in bars:
                    bars[each.uid] = progress.add_task("", total=None, pace="")
                    _draw(progress, bars[each.uid], each)
            if task.uid in bars:
                _draw(progress, bars[task.uid], task)


def _draw(progress: "Progress", bar: "TaskID", task: Task) -> None:
    known = task.progress.percent
    note = f" [{', '.join(task.flags)}]" if task.flags else ""
    progress.update(
        bar,
        description=f"{task.action} {task.id}: {task.state}{note}",
        total=None if known is None else 100.0,
        completed=known or 0.0,
        pace=", ".join(text for text in (rate(task), left(task)) if text),
    )
