from task_client.cli.frame import Settings, verb

COLUMNS = ("action", "backend", "cancellable", "zones", "summary")


@verb
def command(settings: Settings) -> None:
    """The actions there are; --json shows the schema of their parameters."""
    from task_client.cli.output import print_json, print_rows

    found = settings.client().actions()
    if settings.json:
        print_json({"actions": found})
    else:
        print_rows(COLUMNS, ([each.get(name) for name in COLUMNS] for each in found))
