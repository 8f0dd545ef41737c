import click

from task_client.cli.completing import open_task
from task_client.cli.frame import Settings, verb


@verb
@click.argument("uid", shell_complete=open_task)
def command(settings: Settings, uid: str) -> None:
    """Have the backend looked at now."""
    from task_client.cli.output import print_json

    settings.client().poll(uid)
    if settings.json:
        print_json({"uid": uid})
