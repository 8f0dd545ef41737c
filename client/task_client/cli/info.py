from task_client.cli.frame import Settings, formatted, verb


@verb
@formatted
def command(settings: Settings) -> None:
    """The daemon's version, features and limits."""
    from task_client.cli.output import print_object

    print_object(settings, settings.client().info())
