from task_client.cli.frame import Settings, formatted, verb

COLUMNS = ("action", "backend", "cancellable", "zones", "summary")


@verb
@formatted
def command(settings: Settings) -> None:
    """The actions there are.

    --json shows the schema of their parameters."""
    from task_client.cli.output import print_objects

    print_objects(settings, settings.client().actions(), COLUMNS)
