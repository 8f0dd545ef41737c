import click

from task_client.cli.frame import Settings, verb


@verb
def command(settings: Settings) -> int:
    """Ask whether the daemon is there."""
    from task_client.cli.output import print_json

    if not settings.client().ping():
        click.echo(f"taskctl: what answers at {settings.socket} is not task-daemon", err=True)
        return 3
    if settings.json:
        print_json("pong")
    else:
        click.echo("pong")
    return 0
