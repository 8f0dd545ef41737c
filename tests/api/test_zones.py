"""Zones and actions."""

from tests.api.conftest import OPERATOR, READER, Caller


async def test_f13_zones_are_shown_with_their_state(ask: Caller) -> None:
    (zone,) = (await ask.get("/v1/zones", by=READER)).json["zones"]

    assert (zone["zone"], zone["backend"], zone["live_tasks"]) == ("play", "simulated", 0)


async def test_a_zone_is_paused_and_resumed_by_an_admin(ask: Caller) -> None:
    paused = await ask.post("/v1/zones/play/pause")
    resumed = await ask.post("/v1/zones/play/resume", {})

    assert (paused.status, paused.json["state"]) == (200, "paused")
    assert (resumed.status, resumed.json["state"] != "paused") == (200, True)


async def test_f14_a_zone_is_not_paused_by_an_operator(ask: Caller) -> None:
    answer = await ask.post("/v1/zones/play/pause", by=OPERATOR)

    assert (answer.status, answer.json["code"]) == (403, "forbidden")
    assert "admins" in answer.json["detail"]


async def test_an_unknown_zone_is_not_found(ask: Caller) -> None:
    answer = await ask.post("/v1/zones/nowhere/pause")

    assert (answer.status, answer.json["code"]) == (404, "not-found")
    assert "play" in answer.json["detail"]


async def test_actions_are_shown_with_the_schema_of_their_params(ask: Caller) -> None:
    actions = {action["action"]: action for action in (await ask.get("/v1/actions")).json["actions"]}

    assert actions["backup"]["backend"] == "simulated"
    assert actions["backup"]["cancellable"] is True
    assert "$ref" in actions["backup"]["params"]
