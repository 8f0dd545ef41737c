import click

from task_client.cli.frame import Settings, verb


@verb
@click.argument("uid")
def command(settings: Settings, uid: str) -> None:
    """Why a task is where it is, and what happens next and when."""
    from task_client.cli.output import print_json, print_members

    found = settings.client().explain(uid)
    if settings.json:
        print_json(found)
    else:
        print_members(found)
