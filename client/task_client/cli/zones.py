import click

from task_client.cli.frame import Settings, verb

COLUMNS = ("zone", "state", "backend", "live_tasks", "last_answer_at", "latency_seconds", "last_error")


@verb
@click.option("--pause", metavar="ZONE", help="Stop polling this zone.")
@click.option("--resume", metavar="ZONE", help="Go on polling this zone.")
def command(settings: Settings, pause: str | None, resume: str | None) -> None:
    """The zones: state, last answer, last error; --json shows all there is."""
    from task_client.cli.output import print_json, print_rows

    client = settings.client()
    if pause:
        client.pause_zone(pause)
    if resume:
        client.resume_zone(resume)
    found = client.zones()
    if settings.json:
        print_json({"zones": found})
    else:
        print_rows(COLUMNS, ([zone.get(name) for name in COLUMNS] for zone in found))
