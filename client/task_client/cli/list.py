from collections.abc import Mapping
from typing import Any

import click

from task_client.cli.choosing import filter_options
from task_client.cli.frame import Settings, formatted, verb

STATES = ("queued", "running", "cancelling", "succeeded", "failed", "cancelled", "lost")


@verb
@click.option("--state", multiple=True, type=click.Choice(STATES), help="May be repeated.")
@click.option("--done/--open", default=None, help="Only those that have ended, or have not.")
@filter_options
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True)
@formatted
def command(settings: Settings, limit: int, labels: Mapping[str, str], **filters: Any) -> None:
    """List tasks, newest first."""
    from itertools import islice

    from task_client.cli.output import TASK_COLUMNS, print_objects
    from task_client.types import Task

    found = settings.client().list(labels=labels, page_size=min(limit, 500), **filters)
    print_objects(settings, (task.raw for task in islice(found, limit)), TASK_COLUMNS, Task.__dataclass_fields__)
