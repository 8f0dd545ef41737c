from typing import Literal

import click

from task_client.cli.frame import Settings, verb


@verb
@click.argument("uid")
@click.argument("state", type=click.Choice(["succeeded", "failed"]))
@click.option("--reason", default="", help="Kept in the task's history.")
def command(settings: Settings, uid: str, state: Literal["succeeded", "failed"], reason: str) -> None:
    """Decide how a lost task ended."""
    from task_client.cli.output import print_json, summary

    task = settings.client().resolve(uid, state, reason)
    if settings.json:
        print_json(task.raw)
    else:
        click.echo(summary(task))
