from typing import Any

import click

from task_client.cli.drafting import draft_options, submit
from task_client.cli.frame import Settings, verb


@verb
@draft_options
@click.option("--job", metavar="NAME", help="The work's name in the backend: a QMP job, a pid.")
def command(settings: Settings, **given: Any) -> int:
    """Have work watched that was started elsewhere.

    Prints the task's uid. ID is your name for the object worked on, such as a disk.
    """
    return submit(settings, **given)
