"""Following a task to its end: a live bar on a terminal, a line for each change elsewhere."""

import sys
from collections.abc import Iterable

import click

from task_client.cli.frame import STATE_CODES, Settings
from task_client.cli.output import print_json, summary
from task_client.client import Client
from task_client.types import Task


def follow(settings: Settings, client: Client, task: Task, timeout: float | None) -> int:
    """Print what happens until the task has ended; answers the exit code of its state. Raises WaitTimeout."""
    if settings.json:
        task = client.wait(task.uid, timeout)
        print_json(task.raw)
        return STATE_CODES.get(task.state, 1)
    changes = client.watch(task.uid, timeout)
    task = _bar(task, changes) if sys.stdout.isatty() else _lines(task, changes)
    click.echo(summary(task))
    return STATE_CODES.get(task.state, 1)


def _lines(task: Task, changes: Iterable[Task]) -> Task:
    shown = ""
    for task in changes:
        line = summary(task)
        if not task.done and line != shown:
            click.echo(line)
        shown = line
    return task


def _bar(task: Task, changes: Iterable[Task]) -> Task:
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, transient=True) as progress:
        bar = progress.add_task(f"{task.action} {task.id}", total=None)
        for task in changes:
            known = task.progress.percent
            note = " (stalled)" if "stalled" in task.flags else ""
            progress.update(
                bar,
                description=f"{task.action} {task.id}: {task.state}{note}",
                total=None if known is None else 100.0,
                completed=known or 0.0,
            )
    return task
