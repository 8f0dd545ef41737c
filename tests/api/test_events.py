"""The history, of one task and of all."""

from typing import Any

import pytest

from task_daemon.core.errors import CursorExpired
from tests.api.conftest import OPERATOR, OTHER_OPERATOR, READER, Caller, World


async def test_f13_a_task_has_its_history(ask: Caller) -> None:
    await ask.register("another")
    uid = (await ask.ended())["uid"]
    answer = (await ask.get(f"/v1/tasks/{uid}/events")).json

    types = [event["type"] for event in answer["events"]]
    assert (types[0], types[-1]) == ("task.registered", "task.succeeded")
    assert {event["uid"] for event in answer["events"]} == {uid}
    assert answer["cursor"] == answer["events"][-1]["seq"]


async def test_f13_the_feed_is_read_page_by_page_without_a_gap(ask: Caller) -> None:
    await ask.quiet()
    for number in range(5):
        await ask.register(f"d-{number}")
    found: list[int] = []
    after = 0
    for _ in range(3):
        page = (await ask.get(f"/v1/events?after={after}&page_size=2")).json
        found += [event["seq"] for event in page["events"]]
        after = page["cursor"]

    assert found == [1, 2, 3, 4, 5]
    assert after == 5


async def test_the_feed_goes_on_where_a_list_has_ended(ask: Caller) -> None:
    await ask.quiet()
    await ask.register("a")
    cursor = (await ask.get("/v1/tasks")).json["cursor"]
    uid = (await ask.register("b"))["uid"]
    page = (await ask.get(f"/v1/events?after={cursor}")).json

    assert [(event["uid"], event["type"]) for event in page["events"]] == [(uid, "task.registered")]


async def test_waiting_for_an_event_ends_when_one_comes(ask: Caller, world: World) -> None:
    await ask.register("quick-1")
    cursor = (await ask.get("/v1/events")).json["cursor"]
    answer = await ask.waited(ask.get(f"/v1/events?after={cursor}&wait=100"))

    assert answer.json["events"][0]["seq"] == cursor + 1


async def test_waiting_for_an_event_ends_without_an_error_when_time_is_up(ask: Caller) -> None:
    answer = await ask.waited(ask.get("/v1/events?wait=0.1"))

    assert (answer.status, answer.json) == (200, {"events": [], "cursor": 0})


async def test_a_cursor_older_than_the_history_is_gone(ask: Caller, world: World) -> None:
    async def expired(*_: Any) -> Any:
        raise CursorExpired("too old", extra={"oldest": 17})

    world.engine.events = expired  # type: ignore[method-assign, assignment]
    answer = await ask.get("/v1/events?after=3")

    assert (answer.status, answer.json["code"], answer.json["oldest"]) == (410, "cursor-expired", 17)


@pytest.mark.parametrize("query", ["after=-1", "after=x", "wait=301", "page_size=0", "after=" + "9" * 30])
async def test_a_bad_parameter_is_refused(ask: Caller, query: str) -> None:
    assert (await ask.get(f"/v1/events?{query}")).status == 400


async def test_f14_events_of_others_are_left_out_and_the_cursor_moves_past_them(ask: Caller) -> None:
    await ask.quiet()
    mine = (await ask.register("mine", by=OPERATOR))["uid"]
    await ask.register("yours", by=OTHER_OPERATOR)
    answer = (await ask.get("/v1/events", by=OPERATOR)).json

    assert [event["uid"] for event in answer["events"]] == [mine]
    assert answer["cursor"] == 2
    assert len((await ask.get("/v1/events", by=READER)).json["events"]) == 2
    assert (await ask.waited(ask.get("/v1/events?after=1", by=OPERATOR))).json == {"events": [], "cursor": 2}
