from collections.abc import Mapping
from typing import Any

import click

from task_client.cli.choosing import chosen, filter_options
from task_client.cli.completing import open_task
from task_client.cli.frame import Settings, formatted, verb


@verb
@click.argument("uids", metavar="[UID]...", nargs=-1, shell_complete=open_task)
@filter_options
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="How long to watch, at most.")
@formatted
def command(settings: Settings, uids: tuple[str, ...], labels: Mapping[str, str], timeout: float | None, **filters: Any) -> int:
    """Watch tasks until all have ended.

    Bars on a terminal, a line for each change elsewhere.
    Without uids: those that have not ended when it begins and fit the filters. The exit code tells how they ended.
    """
    from task_client.cli.following import follow

    client = settings.client()
    return follow(settings, client, chosen(client, uids, labels, filters), timeout)
