"""The old surface: byte for byte what old clients know."""

from typing import Any

import pytest

from tests.api.conftest import OPERATOR, READER, Caller, World

OLD = {"id": "disk-1", "action": "clone_snapshot", "zone": "play", "region_task_id": "rt-1"}


async def test_ping_answers_pong(ask: Caller) -> None:
    answer = await ask.get("/ping?anything=goes", Accept="text/plain")

    assert (answer.status, answer.body) == (200, b'"pong"')


async def test_registering_answers_an_empty_json_text_and_where_the_task_is(ask: Caller) -> None:
    await ask.quiet()
    answer = await ask.post("/", OLD, by=OPERATOR, Accept="text/plain")
    task = (await ask.get(answer.headers["Location"])).json

    assert (answer.status, answer.body) == (200, b'""')
    assert answer.headers["Content-Type"].startswith("application/json")
    assert {name: task[name] for name in OLD} == OLD
    assert (task["mode"], task["owner"]["uid"], task["state"]) == ("track", OPERATOR.uid, "queued")


async def test_f10_a_repeat_is_the_same_answer_and_no_second_task(ask: Caller) -> None:
    first, second = await ask.post("/", OLD), await ask.post("/", OLD)

    assert (second.status, second.body) == (200, b'""')
    assert second.headers["Location"] == first.headers["Location"]
    assert len((await ask.get("/v1/tasks")).json["tasks"]) == 1


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid-body"),
        (b"nonsense", "invalid-body"),
        (b"[]", "invalid-body"),
        (b'["id", "action", "zone"]', "invalid-body"),
        ({"action": "backup", "zone": "play"}, "invalid-body"),
        ({"action": "backup", "id": "d"}, "invalid-body"),
        ({"id": "d", "zone": "play"}, "invalid-body"),
        (OLD | {"id": 5}, "invalid-body"),
        (OLD | {"region_task_id": []}, "invalid-body"),
        (OLD | {"action": "explode"}, "unknown-action"),
        (OLD | {"zone": "nowhere"}, "unknown-zone"),
    ],
)
async def test_f9_a_wrong_body_is_a_400_on_the_old_surface(ask: Caller, body: Any, code: str) -> None:
    answer = await ask.post("/", body)

    assert (answer.status, answer.json["code"]) == (400, code)
    assert answer.json["errors"] or body in (b"", b"nonsense", b"[]", b'["id", "action", "zone"]')


async def test_f14_the_old_surface_takes_registrations_from_operators_only(ask: Caller) -> None:
    assert (await ask.post("/", OLD, by=READER)).status == 403


async def test_another_region_task_for_a_live_one_is_a_conflict(ask: Caller, world: World) -> None:
    await ask.post("/", OLD)
    answer = await ask.post("/", OLD | {"region_task_id": "rt-2"})

    assert (answer.status, answer.json["code"]) == (409, "conflict")
