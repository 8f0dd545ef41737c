from collections.abc import Mapping
from typing import Any

import click

from task_client.cli.choosing import chosen, filter_options
from task_client.cli.completing import open_task
from task_client.cli.frame import Settings, formatted, verb


@verb
@click.argument("uids", metavar="[UID]...", nargs=-1, shell_complete=open_task)
@click.option("--all/--any", "every", default=True, help="Wait for the end of all, or of the first.  [default: all]")
@click.option("--open", "open_", is_flag=True, help="All tasks that have not ended.")
@filter_options
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="How long to wait, at most.")
@formatted
def command(
    settings: Settings,
    uids: tuple[str, ...],
    every: bool,
    open_: bool,
    labels: Mapping[str, str],
    timeout: float | None,
    **filters: Any,
) -> int:
    """Wait for the end of tasks.

    Across restarts of the daemon; prints a line for each that has ended.
    Filters choose among the tasks that have not ended when it begins. The exit code tells how they ended.
    """
    from task_client.cli.following import follow

    if not (uids or open_ or labels or any(filters.values())):
        raise click.UsageError("name tasks by their uid, choose them by filters, or take them all with --open")
    client = settings.client()
    # The first look is not patient: a wrong socket or uid is an error now, not after the time-out.
    return follow(settings, client, chosen(client, uids, labels, filters), timeout, changes=False, until_any=not every)
