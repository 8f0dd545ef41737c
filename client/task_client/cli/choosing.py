"""Which tasks a verb is about: filters, and uids."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from task_client.cli.completing import any_action, any_zone
from task_client.cli.frame import pairs

if TYPE_CHECKING:
    from task_client.client import Client
    from task_client.types import Task

Function = TypeVar("Function", bound=Callable[..., Any])

_FILTERS = (
    click.option("--zone", metavar="ZONE", shell_complete=any_zone, help="Of this zone."),
    click.option("--action", metavar="ACTION", shell_complete=any_action, help="Of this action."),
    click.option("--id", metavar="ID", help="Of this object, by the registrant's name for it."),
    click.option("--region-task-id", metavar="ID", help="Of this task of the region."),
    click.option("--owner", metavar="UID", help="The uid of who registered them."),
    click.option("--label", "labels", multiple=True, callback=pairs, metavar="NAME=VALUE", help="May be repeated."),
)


def filter_options(function: Function) -> Function:
    for option in reversed(_FILTERS):
        function = option(function)
    return function


def chosen(client: "Client", uids: Sequence[str], labels: Mapping[str, str], filters: Mapping[str, Any]) -> "list[Task]":
    """The tasks named, else the open ones that the filters fit now. Raises click.UsageError for both at once."""
    if not uids:
        return list(client.list(labels=labels, done=False, page_size=500, **filters))
    if labels or any(filters.values()):
        raise click.UsageError("name tasks by their uid, or choose them by filters: not both")
    return [client.get(uid) for uid in dict.fromkeys(uids)]
