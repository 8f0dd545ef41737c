"""What verbs print: JSON, what `--format` asks for, tables on a terminal, tab-separated lines elsewhere."""

import json
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import click

from task_client.cli.formats import one_line, shown
from task_client.cli.frame import Settings
from task_client.types import Task

TASK_COLUMNS = ("uid", "state", "percent", "action", "id", "zone", "created_at")

Row = Mapping[str, Any]


def print_json(value: Any) -> None:
    """One line."""
    click.echo(json.dumps(value, ensure_ascii=False))


def print_object(settings: Settings, found: Row, plain: Callable[[], None] | None = None) -> None:
    """One object as it was asked for; without such a wish what `plain` prints (default: one member a line)."""
    if settings.json or settings.format is not None:
        print_objects(settings, [found], ())
    elif plain is not None:
        plain()
    else:
        print_members(found)


def print_objects(settings: Settings, found: Iterable[Row], columns: Sequence[str], known: Collection[str] = ()) -> None:
    """One object a line as JSON or by the template, else the columns asked for (default: `columns`): a table on a terminal,
    elsewhere tab-separated lines without a heading, for other programs.

    `known`: members that may be missing in an object.
    """
    form = settings.format
    if settings.json or (form is not None and form.template is not None) or not sys.stdout.isatty():
        for row in found:
            print_line(settings, row, columns, known)
    elif form is not None:
        print_table(form.columns, (form.values(row, known) for row in found))
    else:
        print_table(columns, ([_cell(row, name) for name in columns] for row in found))


def print_line(settings: Settings, row: Row, columns: Sequence[str], known: Collection[str] = ()) -> None:
    """One object of a stream that has not ended: a line of its own, on a terminal too."""
    form = settings.format
    if settings.json:
        print_json(row)
    elif form is not None and form.template is not None:
        click.echo(form.line(row, known))
    else:
        cells = form.values(row, known) if form is not None else [_cell(row, name) for name in columns]
        click.echo("\t".join(shown(cell) for cell in cells))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(shown(value)) for value in row))
    Console().print(table)


def print_members(members: Row) -> None:
    """One member a line; what holds nothing is left out."""
    for name, value in members.items():
        if value is not None and value != [] and value != {}:
            click.echo(f"{name}: {shown(value)}")


def print_summary(settings: Settings, task: Task) -> None:
    print_object(settings, task.raw, lambda: click.echo(summary(task)))


def summary(task: Task) -> str:
    """One line for a task as it is now."""
    line = f"{task.uid} {task.state}"
    if task.progress.percent is not None:
        line += f" {task.progress.percent:.1f} %"
    if not task.done:
        line += "".join(f", {text}" for text in (rate(task), left(task)) if text)
    if task.progress.message:
        line += f" {task.progress.message}"
    if task.flags:
        line += f" [{', '.join(task.flags)}]"
    return one_line(line if task.error is None else f"{line}: {task.error.message} ({task.error.kind})")


def left(task: Task) -> str:
    """`80 s left`; empty when it is not known."""
    seconds = task.progress.eta_seconds
    return "" if seconds is None else f"{span(seconds)} left"


def rate(task: Task) -> str:
    """`12.3 MB/s`, `3/s`; empty when it is not known."""
    value, unit = task.progress.rate, task.progress.unit
    if value is None:
        return ""
    if unit != "bytes":
        return f"{value:g} {unit}/s" if unit else f"{value:g}/s"
    for size, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= size:
            return f"{value / size:.1f} {name}/s"
    return f"{value:.0f} B/s"


def span(seconds: float) -> str:
    """`80 s`, `5 min`, `3 h`: rough, for people."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _cell(row: Row, name: str) -> Any:
    if name == "percent":
        value = (row.get("progress") or {}).get("percent")
        return None if value is None else f"{value:.1f}"
    return row.get(name)
