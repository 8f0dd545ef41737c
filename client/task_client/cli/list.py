from collections.abc import Mapping
from typing import Any

import click

from task_client.cli.frame import Settings, pairs, verb

STATES = ("queued", "running", "cancelling", "succeeded", "failed", "cancelled", "lost")


@verb
@click.option("--state", multiple=True, type=click.Choice(STATES), help="May be repeated.")
@click.option("--done/--open", default=None, help="Only those that have ended, or have not.")
@click.option("--zone")
@click.option("--action")
@click.option("--id", metavar="ID")
@click.option("--region-task-id", metavar="ID")
@click.option("--owner", metavar="UID", help="The uid of who registered them.")
@click.option("--label", "labels", multiple=True, callback=pairs, metavar="NAME=VALUE")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True)
def command(settings: Settings, limit: int, labels: Mapping[str, str], **filters: Any) -> None:
    """List tasks, newest first."""
    from itertools import islice

    from task_client.cli.output import print_tasks

    found = settings.client().list(labels=labels, page_size=min(limit, 500), **filters)
    print_tasks(islice(found, limit), settings.json)
