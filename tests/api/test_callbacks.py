"""The mailbox."""

from tests.api.conftest import OPERATOR, OTHER_OPERATOR, READER, READING_OPERATOR, Caller, World


async def mailed(ask: Caller, world: World, name: str = "quick-1") -> str:
    """The id of a callback that did not arrive."""
    world.receiver_up = False
    uid = (await ask.ended(name, by=OPERATOR))["uid"]
    (callback,) = (await ask.get(f"/v1/tasks/{uid}/callbacks")).json["callbacks"]
    found: str = callback["id"]
    return found


async def test_f13_the_callbacks_of_a_task_are_shown(ask: Caller, world: World) -> None:
    uid = (await ask.ended(by=OPERATOR))["uid"]
    (callback,) = (await ask.get(f"/v1/tasks/{uid}/callbacks")).json["callbacks"]

    assert (callback["uid"], callback["type"], callback["url"]) == (uid, "task.succeeded", "/tasks/quick-1")
    assert (await ask.get(f"/v1/callbacks/{callback['id']}")).json["id"] == callback["id"]


async def test_callbacks_are_listed_by_state_and_page(ask: Caller, world: World) -> None:
    found = {await mailed(ask, world, f"quick-{number}") for number in range(3)}
    first = (await ask.get("/v1/callbacks?state=pending&page_size=2")).json
    second = (await ask.get(f"/v1/callbacks?state=pending&page_size=2&page_token={first['next_page_token']}")).json

    assert {callback["id"] for callback in first["callbacks"] + second["callbacks"]} == found
    assert (len(first["callbacks"]), second["next_page_token"]) == (2, None)
    assert (await ask.get("/v1/callbacks?state=dead")).json["callbacks"] == []
    assert (await ask.get("/v1/callbacks?state=odd")).status == 400
    assert (await ask.get(f"/v1/callbacks?page_token={first['next_page_token']}")).status == 400


async def test_a_callback_is_sent_again(ask: Caller, world: World) -> None:
    callback = await mailed(ask, world)
    world.receiver_up = True
    answer = await ask.post(f"/v1/callbacks/{callback}/replay", by=OPERATOR)

    assert (answer.status, answer.json["id"]) == (202, callback)


async def test_a_callback_is_acknowledged(ask: Caller, world: World) -> None:
    callback = await mailed(ask, world)
    answer = await ask.post(f"/v1/callbacks/{callback}/ack", {}, by=OPERATOR)

    assert (answer.status, answer.json["state"]) == (200, "acked")
    assert [each["id"] for each in (await ask.get("/v1/callbacks?state=acked")).json["callbacks"]] == [callback]


async def test_an_unknown_callback_is_not_found(ask: Caller) -> None:
    assert (await ask.get("/v1/callbacks/none")).status == 404
    for verb in ("replay", "ack"):
        answer = await ask.post(f"/v1/callbacks/none/{verb}")
        assert (answer.status, answer.json["code"]) == (404, "not-found")


async def test_f14_callbacks_of_others_do_not_exist_for_an_operator(ask: Caller, world: World) -> None:
    callback = await mailed(ask, world)

    assert (await ask.get("/v1/callbacks", by=OTHER_OPERATOR)).json["callbacks"] == []
    assert (await ask.get(f"/v1/callbacks/{callback}", by=OTHER_OPERATOR)).status == 404
    assert (await ask.post(f"/v1/callbacks/{callback}/ack", by=OTHER_OPERATOR)).status == 404
    for verb in ("ack", "replay"):
        assert (await ask.post(f"/v1/callbacks/{callback}/{verb}", by=READER)).status == 403
        assert (await ask.post(f"/v1/callbacks/{callback}/{verb}", by=READING_OPERATOR)).status == 403
    assert len((await ask.get("/v1/callbacks", by=READER)).json["callbacks"]) == 1
