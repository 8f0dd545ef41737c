import click

from task_client.cli.completing import open_task
from task_client.cli.frame import Settings, formatted, verb


@verb
@click.argument("uid", shell_complete=open_task)
@click.option("--stop-tracking", is_flag=True, help="For work the daemon did not start: stop watching, the work goes on.")
@formatted
def command(settings: Settings, uid: str, stop_tracking: bool) -> None:
    """Ask for the end of a task's work."""
    from task_client.cli.output import print_summary

    print_summary(settings, settings.client().cancel(uid, stop_tracking))
