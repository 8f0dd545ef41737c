import os
from dataclasses import replace
from pathlib import Path

import click

from task_client.cli.frame import Settings, verb

ABOUT = """\
What was found about task-daemon by `taskctl support-bundle` at {now}.
The daemon at {socket} {was}.

config.toml      the configuration in force, secrets hidden
info.json        versions, limits, state of the store, the workers and the outbox
host.json        versions of programs, files of the workspace, free disk
zones.json       each zone's state, breaker and last errors
actions.json     what the zones offer
tasks.json       the newest tasks, without params, labels and callback
callbacks.json   callbacks that are dead or pending: where they go, without path and query, and what came back
check.json       whether the store is sound
log.txt          the latest lines of the log, of this run of the daemon
task-daemon.log  the end of the log file, if the daemon was started by taskctl or init_daemon_process
journal.txt      the end of the journal, if systemd starts the daemon

"""


@verb
@click.option("--output", metavar="FILE", type=click.Path(dir_okay=False), help="[default: task-daemon-support-TIME.tar.gz]")
@click.option(
    "--workspace",
    type=click.Path(file_okay=False),
    help="Of a daemon that is down [default: its unit's, else where its socket is].",
)
@click.option("--config-file", type=click.Path(exists=True, dir_okay=False), help="Of a daemon that is down.")
def command(settings: Settings, output: str | None, workspace: str | None, config_file: str | None) -> None:
    """Put what a helper needs to see into one archive.

    Configuration, versions, zones, tasks, log, check of the store.
    Without secrets, and without what the tasks are about. What cannot be had, because the daemon is down or you are no
    admin, is left out, and the archive says so.
    """
    from datetime import UTC, datetime

    from task_client.cli.output import print_json
    from task_client.support import collect, pack
    from task_client.units import installed, unit_at

    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    if settings.given_socket or os.path.exists(settings.socket):
        unit = unit_at(settings.socket)
    elif (unit := installed()) is not None:  # whose daemon is down: then its socket is not there to be found
        settings = replace(settings, given_socket=unit.socket)
    file = None if config_file is None else str(Path(config_file).absolute())
    found = collect(settings.client(), None if workspace is None else Path(workspace).absolute(), file, unit)
    was = "answered" if found.daemon_up else "could not be asked"
    about = ABOUT.format(now=stamp, socket=settings.socket, was=was)
    about += "".join(f"missing: {name}: {why}\n" for name, why in found.missing.items())
    name = output or f"task-daemon-support-{stamp}.tar.gz"
    pack({"README.txt": about.encode(errors="replace"), **found.files}, f"task-daemon-support-{stamp}", name)
    if settings.json:
        print_json({"file": name, "daemon_up": found.daemon_up, "files": sorted(found.files), "missing": found.missing})
        return
    for what, why in found.missing.items():
        click.echo(f"taskctl: left out {what}: {why}", err=True)
    click.echo(name)
