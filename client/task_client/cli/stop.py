import click

from task_client.cli.frame import Settings, verb


@verb
@click.option("--wait", type=float, default=10.0, show_default=True, metavar="SECONDS", help="How long it may take.")
def command(settings: Settings, wait: float) -> int:
    """Stop the daemon and wait for its end.

    The work it watches goes on, and is watched again after the next start."""
    from task_client.cli.output import print_json
    from task_client.daemon import stop_daemon

    try:
        pid = stop_daemon(settings.socket, wait)
    except TimeoutError as error:
        click.echo(f"taskctl: {error}", err=True)
        return 5
    except PermissionError as error:
        click.echo(f"taskctl: cannot stop the daemon at {settings.socket}: {error}", err=True)
        return 7
    if settings.json:
        print_json({"pid": pid})
    else:
        click.echo(f"stopped, pid {pid}")
    return 0
