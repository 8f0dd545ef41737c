import click

from task_client.cli.frame import Settings, verb


@verb
@click.argument("uid", required=False)
@click.option("--after", type=int, default=0, help="Only events with a higher number.")
@click.option("--follow", is_flag=True, help="Wait for more, until interrupted; with --json one object a line.")
def command(settings: Settings, uid: str | None, after: int, follow: bool) -> None:
    """The history of one task, or of all."""
    import json

    from task_client.cli.output import print_json, print_rows
    from task_client.types import Event

    def row(event: Event) -> tuple[object, ...]:
        return event.seq, event.raw.get("time"), event.uid, event.type, event.detail or None

    found = settings.client().events(uid, after=after, follow=follow)
    if follow:
        for event in found:
            if settings.json:
                click.echo(json.dumps(event.raw, ensure_ascii=False))
            else:
                print_rows(("",) * 5, [row(event)])
    elif settings.json:
        print_json({"events": [event.raw for event in found]})
    else:
        print_rows(("seq", "time", "uid", "type", "detail"), map(row, found))
