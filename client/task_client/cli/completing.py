"""What TAB offers of the running daemon: uids, zones, actions, callbacks. Quick, and silent when it does not answer."""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import click

from task_client.cli.frame import Settings, connect

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from task_client.client import Client

ANSWER_WITHIN = 1.0  # seconds; nobody waits longer for TAB
OFFERED = 100  # newest tasks or callbacks

Function = TypeVar("Function", bound=Callable[..., Any])
Offer = Callable[[click.Context, click.Parameter, str], "list[CompletionItem]"]


def _offer(ask: Callable[["Client"], Iterable["CompletionItem"]]) -> Offer:
    """What the daemon answers to `ask`, as far as it fits what was typed so far."""

    def complete(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> "list[CompletionItem]":  # noqa: ARG001
        import logging

        logging.disable()
        try:
            given = Settings(ctx.find_root().params.get("socket"), json=False)
            with connect(given.socket, ANSWER_WITHIN) as client:
                return [each for each in ask(client) if each.value.startswith(incomplete)]
        except Exception:  # whatever it is, a message would land in the middle of the command line
            return []

    return complete


def _tasks(**filters: Any) -> Offer:
    def ask(client: "Client") -> Iterator["CompletionItem"]:
        from itertools import islice

        for task in islice(client.list(page_size=OFFERED, **filters), OFFERED):
            yield item(task.uid, help=f"{task.action} {task.id} {task.zone} {task.state}")

    return _offer(ask)


def _callbacks(client: "Client") -> Iterator["CompletionItem"]:
    for each in client.callbacks(limit=OFFERED):
        yield item(each.id, help=f"{each.type} {each.state}")


def item(value: str, help: str) -> "CompletionItem":  # noqa: A002 - click's word
    from click.shell_completion import CompletionItem

    return CompletionItem(value, help=help)


any_task = _tasks()
open_task = _tasks(done=False)
lost_task = _tasks(state="lost")
any_callback = _offer(_callbacks)
any_zone = _offer(lambda client: (item(each["zone"], help=each["state"]) for each in client.zones()))
any_action = _offer(lambda client: (item(each["action"], help=each["backend"]) for each in client.actions()))
