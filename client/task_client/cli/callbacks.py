import click

from task_client.cli.completing import any_callback, any_task
from task_client.cli.frame import Nouns, Settings, formatted, verb

COLUMNS = ("id", "state", "attempts", "type", "next_at", "uid", "url")


@click.group("callbacks", cls=Nouns)
def command() -> None:
    """Callbacks, and what came of them: list, show, replay, ack."""


@verb
@click.argument("uid", required=False, shell_complete=any_task)
@click.option("--state", type=click.Choice(["pending", "delivered", "dead", "acked"]))
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True)
@formatted
def list_(settings: Settings, uid: str | None, state: str | None, limit: int) -> None:
    """Callbacks of one task (in their order) or of all (newest first)."""
    from task_client.cli.output import print_objects
    from task_client.types import Callback

    found = settings.client().callbacks(uid, state, limit)
    print_objects(settings, (each.raw for each in found), COLUMNS, Callback.__dataclass_fields__)


@verb
@click.argument("callback_id", metavar="ID", shell_complete=any_callback)
@formatted
def show(settings: Settings, callback_id: str) -> None:
    """One callback with its latest tries.

    When they were made, status, error, beginning of the answer."""
    from task_client.cli.output import print_object

    print_object(settings, settings.client().callback(callback_id).raw)


@verb
@click.argument("callback_ids", metavar="ID...", nargs=-1, required=True, shell_complete=any_callback)
@formatted
def replay(settings: Settings, callback_ids: tuple[str, ...]) -> None:
    """Have callbacks made again, from the start of their schedule.

    Receivers know repeats by `webhook-id`."""
    from task_client.cli.output import print_objects

    client = settings.client()
    print_objects(settings, (client.replay(each).raw for each in callback_ids), COLUMNS)


@verb
@click.argument("callback_ids", metavar="ID...", nargs=-1, required=True, shell_complete=any_callback)
@formatted
def ack(settings: Settings, callback_ids: tuple[str, ...]) -> None:
    """Take callbacks as read: they are not made any more."""
    from task_client.cli.output import print_objects

    client = settings.client()
    print_objects(settings, (client.ack(each).raw for each in callback_ids), COLUMNS)


for each in (list_, show, replay, ack):
    command.add_command(each)
