from typing import Literal

import click

from task_client.cli.completing import lost_task
from task_client.cli.frame import Settings, formatted, verb


@verb
@click.argument("uid", shell_complete=lost_task)
@click.argument("state", type=click.Choice(["succeeded", "failed"]))
@click.option("--reason", default="", help="Kept in the task's history.")
@formatted
def command(settings: Settings, uid: str, state: Literal["succeeded", "failed"], reason: str) -> None:
    """Decide how a lost task ended."""
    from task_client.cli.output import print_summary

    print_summary(settings, settings.client().resolve(uid, state, reason))
