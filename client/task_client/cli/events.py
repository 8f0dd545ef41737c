import click

from task_client.cli.completing import any_task
from task_client.cli.frame import Settings, formatted, verb

COLUMNS = ("seq", "time", "uid", "type", "detail")


@verb
@click.argument("uid", required=False, shell_complete=any_task)
@click.option("--after", type=click.IntRange(min=0), default=0, metavar="SEQ", help="Only events with a higher number.")
@click.option("--follow", is_flag=True, help="Wait for more, until interrupted.")
@formatted
def command(settings: Settings, uid: str | None, after: int, follow: bool) -> None:
    """The history of one task, or of all."""
    from task_client.cli.output import print_line, print_objects

    found = (event.raw for event in settings.client().events(uid, after=after, follow=follow))
    if follow:
        for row in found:
            print_line(settings, row, COLUMNS)
    else:
        print_objects(settings, found, COLUMNS)
