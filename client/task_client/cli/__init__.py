"""taskctl: the user's tool. One file for each verb, loaded when it is asked for."""

from collections.abc import Iterator
from importlib import import_module

import click

from task_client.cli.frame import EPILOG, Settings

VERBS = (
    "register",
    "run",
    "list",
    "show",
    "watch",
    "wait",
    "cancel",
    "poll",
    "resolve",
    "explain",
    "events",
    "callbacks",
    "zones",
    "actions",
    "info",
    "ping",
    "start",
    "stop",
    "dashboard",
    "support-bundle",
    "selftest",
    "completion",
)


class Verbs(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return [*VERBS]  # `list` is the verb's module here, once it is loaded

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in VERBS:
            return None
        command: click.Command = import_module(f"{__name__}.{cmd_name.replace('-', '_')}").command
        return command


@click.group(cls=Verbs, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--socket", metavar="PATH", envvar="TASK_DAEMON_SOCKET", help="The daemon's socket [default: of `taskctl start`].")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line; understood after the verb too.")
@click.pass_context
def main(ctx: click.Context, socket: str | None, as_json: bool) -> None:
    """Register long work with task-daemon, look at it, wait for it, cancel it."""
    ctx.obj = Settings(socket, as_json)


def commands() -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every verb, and the verbs of verbs, with the words that call them."""
    context = click.Context(main)
    for name in VERBS:
        command = main.get_command(context, name)
        if isinstance(command, click.Group):
            yield from (((name, inner), command.commands[inner]) for inner in command.commands)
        elif command is not None:
            yield (name,), command
