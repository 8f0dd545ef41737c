from task_client.cli.frame import Settings, verb


@verb
def command(settings: Settings) -> None:
    """The daemon's version, features and limits."""
    from task_client.cli.output import print_json, print_members

    found = settings.client().info()
    if settings.json:
        print_json(found)
    else:
        print_members(found)
