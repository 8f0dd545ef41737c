import click

from task_client.cli.completing import any_task
from task_client.cli.frame import Settings, formatted, verb

COLUMNS = ("seq", "time", "uid", "type", "detail")
LATEST = "latest"


def _cursor(ctx: click.Context, parameter: click.Parameter, value: str) -> str:
    if value != LATEST and not (value.isdecimal() and value.isascii()):
        raise click.BadParameter(f"{value!r} is neither the number of an event nor `{LATEST}`", ctx, parameter)
    return value


@verb
@click.argument("uid", required=False, shell_complete=any_task)
@click.option(
    "--after", default="0", callback=_cursor, metavar="SEQ", help="Only events with a higher number; `latest`: only new ones."
)
@click.option("--follow", is_flag=True, help="Wait for more, until interrupted; no event is missed, across restarts too.")
@click.option("--progress", is_flag=True, help="Follow, and tell how far live tasks are, at most once a second for each.")
@formatted
def command(settings: Settings, uid: str | None, after: str, follow: bool, progress: bool) -> None:
    """The history of one task, or of all."""
    from task_client.cli.output import print_line, print_objects

    client = settings.client()
    seq = client.cursor() if after == LATEST else int(after)
    found = (event.raw for event in client.events(uid, after=seq, follow=follow or progress, progress=progress))
    if follow or progress:
        for row in found:
            print_line(settings, row, COLUMNS, COLUMNS)
    else:
        print_objects(settings, found, COLUMNS)
