import click

from task_client.cli.frame import Settings, verb


@verb
@click.argument("uid")
def command(settings: Settings, uid: str) -> None:
    """Show everything about one task."""
    from task_client.cli.output import print_task

    print_task(settings.client().get(uid), settings.json)
