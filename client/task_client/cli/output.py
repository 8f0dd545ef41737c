"""What verbs print: JSON, tables on a terminal, plain lines elsewhere."""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click

from task_client.types import Task

TASK_COLUMNS = ("uid", "state", "percent", "action", "id", "zone", "created")


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, ensure_ascii=False, indent=2 if sys.stdout.isatty() else None))


def print_rows(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table on a terminal; else tab-separated lines without a heading, for other programs."""
    texts = [[_text(value) for value in row] for row in rows]
    if not sys.stdout.isatty():
        for row in texts:
            click.echo("\t".join(row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in texts:
        table.add_row(*(Text(text) for text in row))
    Console().print(table)


def print_members(members: dict[str, Any]) -> None:
    """One member a line; what holds nothing is left out."""
    for name, value in members.items():
        if value is not None and value != [] and value != {}:
            click.echo(f"{name}: {_text(value)}")


def print_tasks(tasks: Iterable[Task], as_json: bool) -> None:
    if as_json:
        print_json({"tasks": [task.raw for task in tasks]})
    else:
        print_rows(TASK_COLUMNS, (task_row(task) for task in tasks))


def print_task(task: Task, as_json: bool) -> None:
    if as_json:
        print_json(task.raw)
    else:
        print_members(task.raw)


def task_row(task: Task) -> tuple[Any, ...]:
    return (task.uid, task.state, percent(task), task.action, task.id, task.zone, task.raw.get("created_at"))


def percent(task: Task) -> str:
    return "-" if task.progress.percent is None else f"{task.progress.percent:.1f}"


def summary(task: Task) -> str:
    """One line for a task as it is now."""
    line = f"{task.uid} {task.state}"
    if task.progress.percent is not None:
        line += f" {task.progress.percent:.1f} %"
    if task.progress.message:
        line += f" {task.progress.message}"
    if task.flags:
        line += f" [{', '.join(task.flags)}]"
    return line if task.error is None else f"{line}: {task.error.message} ({task.error.kind})"


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return one_line(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def one_line(text: str) -> str:
    """A newline or tab in a name would break the rows, an escape sequence the terminal."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
