import click

from task_client.cli.frame import Settings, verb


@verb
@click.option("--workspace", type=click.Path(file_okay=False), help="Where the daemon keeps its store.")
@click.option(
    "--config-file",
    type=click.Path(exists=True, dir_okay=False),
    help="Its configuration [default: etc/task-daemon.toml, if it is there].",
)
@click.option("--wait", type=float, default=10.0, show_default=True, metavar="SECONDS", help="How long it may take.")
def command(settings: Settings, workspace: str | None, config_file: str | None, wait: float) -> None:
    """Start the daemon unless it is there already.

    Prints its socket."""
    from task_client.cli.output import print_json
    from task_client.daemon import init_daemon_process

    path = init_daemon_process(workspace=workspace, unix_socket=settings.given_socket, config_file=config_file, wait=wait)
    if settings.json:
        print_json({"socket": path})
    else:
        click.echo(path)
