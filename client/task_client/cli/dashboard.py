from contextlib import ExitStack

import click

from task_client.cli.frame import Settings, verb


@verb
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="The port on 127.0.0.1 [default: any free one].")
@click.option("--open/--no-open", "show", default=None, help="Open it in the browser [default: where there is a desktop].")
def command(settings: Settings, port: int, show: bool | None) -> None:
    """Serve tasks and zones to your browser, until interrupted.

    Tasks, callbacks and zones, live.
    The link works once, in one browser. From another machine: ssh -L PORT:127.0.0.1:PORT HOST, with the port of the link.
    """
    import sys

    from task_client.cli.output import print_json
    from task_client.dashboard.bridge import Bridge

    settings.client().info()  # an absent daemon is told here, not in the browser
    try:
        bridge = Bridge(settings.socket, port)
    except OSError as error:
        text = f"cannot listen on 127.0.0.1:{port}: {error.strerror}; leave --port out to take a free one"
        raise click.ClickException(text) from None
    with bridge:
        if settings.json:
            print_json({"link": bridge.link})
        else:
            click.echo(f"Dashboard of {settings.socket}\n  {bridge.link}\nThe link works once. Ctrl-C ends the dashboard.")
        sys.stdout.flush()
        try:
            with _shown(bridge.link, show):
                bridge.serve_forever(poll_interval=0.1)
        except KeyboardInterrupt:
            pass


def _shown(link: str, show: bool | None) -> ExitStack:
    """The link in the user's browser, through a file that nobody else can read: command lines are seen by all users."""
    import os
    import sys
    import tempfile
    import webbrowser

    stack = ExitStack()
    desktop = sys.stdout.isatty() and any(name in os.environ for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    if show or (show is None and desktop):
        file = stack.enter_context(tempfile.NamedTemporaryFile("w", suffix=".html"))  # noqa: SIM115 - the stack closes it
        file.write(f'<!doctype html><meta http-equiv="refresh" content="0;url={link}"><a href="{link}">To the dashboard</a>')
        file.flush()
        webbrowser.open(f"file://{file.name}")
    return stack
