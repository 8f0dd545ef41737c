"""The route table: complete, and closed to strangers."""

import pytest

from task_daemon.api.access import Level
from task_daemon.api.app import ROUTES
from tests.api.conftest import STRANGER, Caller

CONTRACT = {
    "GET /ping": "open",
    "POST /": "write",
    "POST /v1/tasks": "write",
    "POST /v1/tasks:batch": "write",
    "GET /v1/tasks": "read",
    "GET /v1/tasks/*": "read",
    "DELETE /v1/tasks/*": "write",
    "POST /v1/tasks/*/cancel": "write",
    "POST /v1/tasks/*/poll": "write",
    "POST /v1/tasks/*/resolve": "write",
    "GET /v1/tasks/*/events": "read",
    "GET /v1/tasks/*/callbacks": "read",
    "GET /v1/tasks/*/explain": "read",
    "GET /v1/events": "read",
    "GET /v1/callbacks": "read",
    "GET /v1/callbacks/*": "read",
    "POST /v1/callbacks/*/replay": "write",
    "POST /v1/callbacks/*/ack": "write",
    "GET /v1/zones": "read",
    "POST /v1/zones/*/pause": "admin",
    "POST /v1/zones/*/resume": "admin",
    "GET /v1/actions": "read",
    "GET /v1/info": "read",
    "GET /v1/openapi.json": "read",
    "GET /healthz": "open",
    "GET /readyz": "open",
    "GET /metrics": "open",
    "GET /v1/config": "admin",
    "GET /v1/log": "admin",
    "GET /v1/check": "admin",
}


def test_the_routes_are_those_of_the_contract() -> None:
    found = {
        f"{method} {path.replace('([^/]+)', '*')}": level.value for path, levels, _ in ROUTES for method, level in levels.items()
    }

    assert found == CONTRACT


@pytest.mark.parametrize("route", [route for route, level in CONTRACT.items() if level != "open"])
async def test_f14_no_route_lets_a_stranger_in(ask: Caller, route: str) -> None:
    method, path = route.replace("*", "x").split()
    answer = await ask(method, path, b"{}" if method == "POST" else None, by=STRANGER)

    assert (answer.status, answer.json["code"]) == (403, "forbidden")


def test_what_can_be_changed_needs_more_than_reading() -> None:
    assert all(
        level in (Level.WRITE, Level.ADMIN) for _, levels, _ in ROUTES for method, level in levels.items() if method != "GET"
    )
