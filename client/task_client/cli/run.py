from collections.abc import Mapping
from typing import Any

import click

from task_client.cli.drafting import draft_options, submit
from task_client.cli.frame import Settings, pairs, verb


@verb
@draft_options
@click.option("--param", "single", multiple=True, callback=pairs, metavar="NAME=VALUE", help="JSON, else taken as text.")
@click.option("--params", "whole", metavar="JSON", default="{}", help="All parameters as one object.")
def command(settings: Settings, single: Mapping[str, str], whole: str, **given: Any) -> int:
    """Have the daemon start work and watch it.

    Prints the task's uid. `taskctl actions` shows which parameters an action takes.
    """
    import json

    try:
        params = json.loads(whole)
    except ValueError as error:
        raise click.BadParameter(f"it is not JSON: {error}", param_hint="--params") from error
    if not isinstance(params, dict):
        raise click.BadParameter("a JSON object is accepted", param_hint="--params")
    return submit(settings, params=params | {name: _value(text) for name, text in single.items()}, **given)


def _value(text: str) -> Any:
    import json

    try:
        return json.loads(text)
    except ValueError:
        return text
