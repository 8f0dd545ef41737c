import os
from typing import TYPE_CHECKING

import click

from task_client.cli.frame import Settings, verb

if TYPE_CHECKING:
    from task_client.selftest.crash import Result


@verb
@click.option("--crash", is_flag=True, required=True, help="Kill a scratch daemon at random moments, and look what is lost.")
@click.option("--rounds", type=click.IntRange(1), default=20, show_default=True, help="How often it is killed and started.")
@click.option(
    "--dir",
    "directory",
    type=click.Path(exists=True, file_okay=False, writable=True),
    default=".",
    help="On the disk that is to be tested [default: the current directory].",
)
@click.option("--seed", type=int, help="Repeat the moments of an earlier run.")
def command(settings: Settings, crash: bool, rounds: int, directory: str, seed: int | None) -> int:  # noqa: ARG001
    """Prove on your disk that a killed daemon loses nothing.

    No task is lost, doubled or untold, whenever it is killed.

    A daemon of its own is used; yours is left alone. When a promise was broken, the exit code is 1 and the evidence is kept.
    """
    import logging
    import random
    import shutil
    import sys
    import tempfile
    from dataclasses import asdict
    from pathlib import Path

    from task_client.cli.output import print_json
    from task_client.selftest.crash import prove

    logging.getLogger("task_client").addHandler(logging.NullHandler())  # lost connections are what this is about
    if seed is None:
        seed = random.SystemRandom().randrange(1 << 31)
    home = Path(tempfile.mkdtemp(prefix="td-selftest-", dir=os.path.abspath(directory)))
    quiet = settings.json or not sys.stderr.isatty()
    result = prove(
        home, rounds, seed, said=lambda number: None if quiet else click.echo(f"\r{number} of {rounds}", nl=False, err=True)
    )
    if not quiet:
        click.echo(err=True)
    if not result.problems:
        shutil.rmtree(home, ignore_errors=True)
    if settings.json:
        print_json(asdict(result) | {"home": str(home)})
    else:
        for line in told(result):
            click.echo(line)
    return 1 if result.problems else 0


def told(result: "Result") -> list[str]:
    """The report for people."""
    lines = [
        f"killed {result.kills} times ({result.starts_cut_short} during a start) in {result.seconds:.0f} s, seed {result.seed}",
        f"{result.tasks} tasks acknowledged, {result.deliveries} callbacks received (some were refused, and came again)",
    ]
    if result.disk is not None:
        lines.append(
            f"this disk: append and fdatasync of 4 KiB takes {result.disk.median:.2f} ms (median), {result.disk.p99:.2f} ms (p99)"
        )
    lines.append(
        f"{result.registrations_per_second:.0f} registrations/s in {result.commits_per_second:.0f} commits/s, from 4 threads"
    )
    if not result.problems:
        return [*lines, "ok: nothing was lost, invented, started twice or left untold"]
    return [*lines, *(f"BROKEN: {problem}" for problem in result.problems), f"the evidence is kept in {result.home}"]
