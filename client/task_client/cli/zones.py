import click

from task_client.cli.completing import any_zone
from task_client.cli.frame import Nouns, Settings, formatted, verb

COLUMNS = ("zone", "state", "backend", "live_tasks", "last_answer_at", "latency_seconds", "last_error")


@click.group("zones", cls=Nouns)
def command() -> None:
    """Zones, and how each is doing: list, pause, resume."""


@verb
@formatted
def list_(settings: Settings) -> None:
    """The zones: state, last answer, last error.

    --json shows all there is."""
    from task_client.cli.output import print_objects

    print_objects(settings, settings.client().zones(), COLUMNS)


@verb
@click.argument("zone", shell_complete=any_zone)
@formatted
def pause(settings: Settings, zone: str) -> None:
    """Stop polling a zone, until it is resumed.

    Its tasks are kept, and their deadlines go on."""
    from task_client.cli.output import print_objects

    print_objects(settings, [settings.client().pause_zone(zone)], COLUMNS)


@verb
@click.argument("zone", shell_complete=any_zone)
@formatted
def resume(settings: Settings, zone: str) -> None:
    """Go on polling a paused zone."""
    from task_client.cli.output import print_objects

    print_objects(settings, [settings.client().resume_zone(zone)], COLUMNS)


for each in (list_, pause, resume):
    command.add_command(each)
