import click

from task_client.cli.completing import any_task
from task_client.cli.frame import Settings, formatted, verb


@verb
@click.argument("uid", shell_complete=any_task)
@formatted
def command(settings: Settings, uid: str) -> None:
    """Show everything about one task."""
    from task_client.cli.output import print_object

    print_object(settings, settings.client().get(uid).raw)
