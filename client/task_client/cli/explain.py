from collections.abc import Iterator
from datetime import datetime
from typing import Any

import click

from task_client.cli.completing import any_task
from task_client.cli.frame import Settings, verb


@verb
@click.argument("uid", shell_complete=any_task)
def command(settings: Settings, uid: str) -> None:
    """Why a task is where it is, and what happens next and when."""
    from task_client.cli.formats import one_line
    from task_client.cli.output import print_json

    found = settings.client().explain(uid)
    if settings.json:
        print_json(found)
    else:
        for line in told(found):
            click.echo(one_line(line))


def told(found: dict[str, Any]) -> Iterator[str]:
    """The explanation as lines for people. Times are told from the daemon's clock, not from ours."""
    zone, percent = found.get("zone") or {}, found.get("percent")
    state = str(found.get("state")) + ("" if percent is None else f", {percent:.1f} %")
    yield f"{found.get('action')} of {found.get('id')} in zone {zone.get('zone')} ({found.get('mode')}): {state}"
    error = found.get("error")
    if error:
        yield f"error: {error.get('message')} ({error.get('kind')})"
    yield f"waits for: {found.get('waiting_for')}"
    now = found.get("now")
    for name, member in (("next poll", "next_poll_at"), ("last poll", "last_polled_at"), ("deadline", "deadline_at")):
        if found.get(member):
            yield f"{name}: {_when(found[member], now)}"
    if found.get("to_clean_up"):
        yield "to clean up: the backend still has something of it; tried again with each poll"
    yield from _zone(zone, now)
    yield from _callbacks(found.get("callbacks") or [], now)


def _zone(zone: dict[str, Any], now: str | None) -> Iterator[str]:
    breaker = f", breaker {zone['breaker']}" if zone.get("breaker") else ""
    failures = f", {zone['failures']} polls in a row failed" if zone.get("failures") else ""
    yield f"zone {zone.get('zone')}: {zone.get('state')}{breaker}{failures}"
    if zone.get("last_answer_at"):
        yield f"  last answer: {_when(zone['last_answer_at'], now)}"
    for error in zone.get("errors") or []:
        yield f"  error {_when(error.get('at'), now)}: {error.get('error')}"


def _callbacks(callbacks: list[dict[str, Any]], now: str | None) -> Iterator[str]:
    for each in callbacks:
        to = f" to {each['url']}" if each.get("url") else ""  # hidden from readers
        yield f"callback {each.get('id')} {each.get('type')}{to}: {each.get('state')}"
        if each.get("waits_for"):
            at = f", {_when(each['next_at'], now)}" if each.get("next_at") else ""
            yield f"  waits for: {each['waits_for']}{at}"
        last = each.get("last_answer")
        if last:
            status = f"HTTP {last['status']}" if last.get("status") else "none"
            why = f": {last['error']}" if last.get("error") else ""
            yield f"  last answer of {each.get('attempts')}, {_when(last.get('at'), now)}: {status}{why}"


def _when(at: str | None, now: str | None) -> str:
    """`in 4 s (2026-...)`; only the time itself if one of the two is not a time."""
    try:
        seconds = (datetime.fromisoformat(at or "") - datetime.fromisoformat(now or "")).total_seconds()
    except (ValueError, TypeError):
        return str(at)
    from task_client.cli.output import span

    far = span(abs(seconds))
    return f"in {far} ({at})" if seconds >= 0 else f"{far} ago ({at})"
