import click

from task_client.cli.frame import Settings, verb


@verb
@click.argument("uid", required=False)
@click.option("--state", type=click.Choice(["pending", "delivered", "dead", "acked"]))
@click.option("--replay", metavar="ID", help="Have this callback made again.")
@click.option("--ack", metavar="ID", help="Take this callback as read: it is not made any more.")
def command(settings: Settings, uid: str | None, state: str | None, replay: str | None, ack: str | None) -> None:
    """Callbacks of one task or of all, and what came of them."""
    from task_client.cli.output import print_json, print_rows

    client = settings.client()
    if replay or ack:
        if replay:
            client.replay(replay)
        if ack:
            client.ack(ack)
        return
    found = client.callbacks(uid, state)
    if settings.json:
        print_json({"callbacks": [each.raw for each in found]})
    else:
        rows = ((c.id, c.state, c.attempts, c.type, c.raw.get("next_at"), c.uid, c.url) for c in found)
        print_rows(("id", "state", "attempts", "type", "next", "uid", "url"), rows)
