import click

from task_client.cli.frame import Settings, verb


@verb
@click.argument("uid")
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="How long to wait, at most.")
def command(settings: Settings, uid: str, timeout: float | None) -> int:
    """Follow a task to its end, across restarts of the daemon; the exit code tells how it ended."""
    from task_client.cli.following import follow

    client = settings.client()
    # The first look is not patient: a wrong socket or uid is an error now, not after the time-out.
    return follow(settings, client, client.get(uid), timeout)
