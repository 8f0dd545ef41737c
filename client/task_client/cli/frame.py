"""What all verbs share: settings, exit codes, errors on stderr."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from task_client.errors import AnswerUnknown, ClientError, DaemonNotStarted, DaemonUnreachable, RequestRefused, WaitTimeout

if TYPE_CHECKING:
    from task_client.client import Client

EXIT_CODES = """\b
Exit codes:
  0  done; of a task that was waited for: succeeded
  1  the task failed
  2  wrong usage
  3  the daemon cannot be reached, or its answer got lost
  4  the task is lost: the backend does not know it any more
  5  time was up before the task's end; the work goes on
  6  the task was cancelled
  7  the daemon refused the request

Tables are for terminals; in a pipe, rows come one a line, tab-separated."""

STATE_CODES = {"succeeded": 0, "failed": 1, "lost": 4, "cancelled": 6}

_NEXT = {
    "unknown-action": "`taskctl actions` lists what is accepted",
    "unknown-zone": "`taskctl zones` lists what is accepted",
    "not-found": "`taskctl list` shows the tasks there are",
    "gone": "it was deleted; `taskctl list` shows the tasks there are",
    "not-cancellable": "`taskctl cancel --stop-tracking UID` ends the watching and leaves the work alone",
    "conflict": "`taskctl list --open` shows the one that is watched already",
    "not-lost": "`taskctl show UID` tells its state",
    "forbidden": "ask the daemon's administrator, or use the account that registered the task",
}


@dataclass(frozen=True)
class Settings:
    given_socket: str | None
    json: bool

    @property
    def socket(self) -> str:
        from task_client.paths import default_socket

        return self.given_socket or default_socket()

    def client(self) -> "Client":
        """Over httplib2: of the two transports the one that is imported sooner (measured: 95 against 111 ms a command)."""
        from task_client.client import Client
        from task_client.over_httplib2 import Httplib2Transport

        client = Client(transport=Httplib2Transport(self.socket))
        click.get_current_context().call_on_close(client.close)
        return client


def verb(function: Callable[..., int | None]) -> click.Command:
    """A command: gets Settings first, answers its exit code (None: 0). Errors of the client end it with theirs."""

    @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    @wraps(function)
    def run(as_json: bool, **arguments: Any) -> None:
        ctx = click.get_current_context()
        settings: Settings = ctx.obj
        try:
            code = function(replace(settings, json=settings.json or as_json), **arguments)
        except ClientError as error:
            for line in _lines(error):
                click.echo(line, err=True)
            ctx.exit(_code(error))
        ctx.exit(code or 0)

    name = function.__module__.rsplit(".", 1)[-1].replace("_", "-")
    return click.command(name)(run)


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
