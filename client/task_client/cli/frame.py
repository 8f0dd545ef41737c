"""What all verbs share: settings, exit codes, errors on stderr."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import click

from task_client.errors import AnswerUnknown, ClientError, DaemonNotStarted, DaemonUnreachable, RequestRefused, WaitTimeout

if TYPE_CHECKING:
    from task_client.cli.formats import Format
    from task_client.client import Client

EXIT_CODES = {
    0: "done; of tasks that were waited for: succeeded",
    1: "a task failed",
    2: "wrong usage",
    3: "the daemon cannot be reached, or its answer got lost",
    4: "a task is lost: the backend does not know it any more",
    5: "time was up before the end; the work goes on",
    6: "a task was cancelled",
    7: "the daemon refused the request",
    130: "interrupted; the work goes on",
}
OF_SEVERAL = "Of several tasks the first of 1, 4, 6 counts that befell one of them."
OUTPUT = "Tables are for terminals; in a pipe, rows come one a line, tab-separated. --json prints one object a line."
_CODES = "\n".join(f"{code:5}  {text}" for code, text in EXIT_CODES.items())
EPILOG = f"\b\nExit codes:\n{_CODES}\n\n{OF_SEVERAL}\n\n{OUTPUT}"

STATE_CODES = {"succeeded": 0, "failed": 1, "lost": 4, "cancelled": 6}
INTERRUPTED = 130

Function = TypeVar("Function", bound=Callable[..., Any])

_NEXT = {
    "unknown-action": "`taskctl actions` lists what is accepted",
    "unknown-zone": "`taskctl zones` lists what is accepted",
    "not-found": "`taskctl list` shows the tasks there are",
    "gone": "it was deleted; `taskctl list` shows the tasks there are",
    "not-cancellable": "`taskctl cancel --stop-tracking UID` ends the watching and leaves the work alone",
    "already-finished": "`taskctl show UID` tells how it ended",
    "cursor-expired": "leave --after out; what is older is not retained",
    "conflict": "`taskctl list --open` shows the one that is watched already",
    "not-lost": "`taskctl show UID` tells its state",
    "forbidden": "ask the daemon's administrator, or use the account that registered the task",
}


@dataclass(frozen=True)
class Settings:
    given_socket: str | None
    json: bool
    format: "Format | None" = None

    @property
    def socket(self) -> str:
        from task_client.paths import default_socket

        return self.given_socket or default_socket()

    def client(self) -> "Client":
        client = connect(self.socket)
        click.get_current_context().call_on_close(client.close)
        return client


def connect(socket: str, timeout: float = 30.0) -> "Client":
    from task_client.client import Client

    return Client(socket, timeout=timeout)


def verb(function: Callable[..., int | None]) -> click.Command:
    """A command: gets Settings first, answers its exit code (None: 0). Errors of the client end it with theirs.

    It is named after its module, or after itself where a module has several.
    """

    @click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")
    @wraps(function)
    def run(as_json: bool, template: str | None = None, **arguments: Any) -> None:
        ctx = click.get_current_context()
        settings: Settings = ctx.obj
        as_json = settings.json or as_json
        try:
            code = function(replace(settings, json=as_json, format=_format(template, as_json)), **arguments)
        except ClientError as error:
            for line in _lines(error):
                click.echo(line, err=True)
            ctx.exit(_code(error))
        except KeyboardInterrupt:
            click.echo("taskctl: interrupted; what was registered goes on", err=True)
            ctx.exit(INTERRUPTED)
        ctx.exit(code or 0)

    own = function.__name__ if function.__name__ != "command" else function.__module__.rpartition(".")[2]
    return click.command(own.rstrip("_").replace("_", "-"))(run)


def formatted(function: Function) -> Function:
    """For verbs that print objects."""
    text = "Columns such as uid,state,progress.percent, or a template such as '{uid} is {state}'."
    return click.option("--format", "template", metavar="TEXT", help=text)(function)


class Nouns(click.Group):
    """A verb with verbs of its own; `list` is meant when none is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        named = args and (not args[0].startswith("-") or args[0] in ctx.help_option_names)
        if not named and not ctx.resilient_parsing:  # which TAB does, to know what may come next
            args = ["list", *args]
        return super().parse_args(ctx, args)


def _format(template: str | None, as_json: bool) -> "Format | None":
    if template is None:
        return None
    if as_json:
        raise click.UsageError("--json and --format exclude each other")
    from task_client.cli.formats import Format

    return Format.read(template)


def pairs(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """`K=V` options as a dict; what click calls with the values of a repeatable option."""
    found = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not name or not equals:
            raise click.BadParameter(f"{value!r} is not NAME=VALUE", ctx, parameter)
        found[name] = text
    return found


def _code(error: ClientError) -> int:
    if isinstance(error, (DaemonUnreachable, AnswerUnknown, DaemonNotStarted)):
        return 3
    if isinstance(error, WaitTimeout):
        return 5
    return 7 if isinstance(error, RequestRefused) else 1


def _lines(error: ClientError) -> list[str]:
    lines = [f"taskctl: {error}"]
    if isinstance(error, RequestRefused):
        lines += [f"  {pointer or '/'}: {message}" for pointer, message in error.errors]
        if error.code in _NEXT:
            lines.append(f"  next: {_NEXT[error.code]}")
        elif error.retry_after is not None:
            lines.append(f"  next: try again in {error.retry_after:g} s")
    if isinstance(error, AnswerUnknown):
        lines.append("  next: `taskctl list` shows whether it was carried out; registering again under the same key is safe")
    return lines
