"""What `register` and `run` have in common."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from task_client.cli.completing import any_action, any_zone
from task_client.cli.frame import Settings, formatted, pairs

Function = TypeVar("Function", bound=Callable[..., Any])

_OPTIONS = (
    click.argument("id_", metavar="ID"),
    click.argument("action", shell_complete=any_action),
    click.argument("zone", shell_complete=any_zone),
    click.option("--region-task-id", metavar="ID", help="The region's own task, told at the end."),
    click.option("--callback", metavar="URL", help="Where to tell the end: http://, https:// or http+unix://."),
    click.option("--timeout", type=float, metavar="SECONDS", help="The task's life from now on."),
    click.option(
        "--poll-interval", type=float, metavar="SECONDS", help="How often to look at it, at most [default: the zone's]."
    ),
    click.option("--label", "labels", multiple=True, callback=pairs, metavar="NAME=VALUE", help="May be repeated."),
    click.option("--key", metavar="TEXT", help="Idempotency key: registering again under it changes nothing."),
    click.option("--wait", is_flag=True, help="Follow the task to its end; the exit code tells how it ended."),
    click.option("--wait-timeout", type=float, metavar="SECONDS", help="How long to follow it, at most."),
    formatted,
)


def draft_options(function: Function) -> Function:
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def submit(
    settings: Settings,
    id_: str,
    action: str,
    zone: str,
    labels: Mapping[str, str],
    key: str | None,
    wait: bool,
    wait_timeout: float | None,
    **members: Any,
) -> int:
    from task_client.cli.following import follow
    from task_client.cli.output import print_object

    client = settings.client()
    task = client.register(id_, action, zone, labels=labels or None, idempotency_key=key, **members)
    if wait or wait_timeout is not None:
        return follow(settings, client, [task], wait_timeout)
    print_object(settings, task.raw, lambda: click.echo(task.uid))
    return 0
