import click

from task_client.cli.frame import Settings, verb


@verb
@click.argument("uid")
@click.option("--stop-tracking", is_flag=True, help="For work the daemon did not start: stop watching, the work goes on.")
def command(settings: Settings, uid: str, stop_tracking: bool) -> None:
    """Ask for the end of a task's work."""
    from task_client.cli.output import print_json, summary

    task = settings.client().cancel(uid, stop_tracking)
    if settings.json:
        print_json(task.raw)
    else:
        click.echo(summary(task))
