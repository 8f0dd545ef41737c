"""Registering, listing, looking, waiting, changing (F10, F13)."""

import asyncio
from typing import Any

import pytest

from task_daemon.core.errors import QueueFull, StoreFull
from tests.api.conftest import OPERATOR, OTHER_OPERATOR, READER, READING_OPERATOR, Caller, World, turns_until

GOOD: dict[str, Any] = {"id": "d-1", "action": "backup", "zone": "play"}


def refused(answer: Any, status: int, code: str) -> dict[str, Any]:
    assert (answer.status, answer.json["code"]) == (status, code), answer.body
    problem: dict[str, Any] = answer.json
    return problem


# ---------------------------------------------------------------------- registering


async def test_a_registration_is_accepted_with_the_task(ask: Caller) -> None:
    answer = await ask.post("/v1/tasks", GOOD | {"labels": {"team": "a"}, "x_mine": [1]}, by=OPERATOR)
    task = answer.json

    assert answer.status == 202
    assert answer.headers["Location"] == f"/v1/tasks/{task['uid']}"
    assert int(answer.headers["Retry-After"]) >= 1
    assert task["state"] == "queued"
    assert task["done"] is False
    assert task["labels"] == {"team": "a"}
    assert task["x_mine"] == [1]
    assert task["owner"] == {"uid": OPERATOR.uid, "gid": OPERATOR.gid, "pid": OPERATOR.pid}
    assert task["callbacks"] == {"pending": 0, "delivered": 0, "dead": 0}
    assert (await ask.get(answer.headers["Location"])).json["uid"] == task["uid"]


async def test_f10_the_same_registration_gives_the_same_task(ask: Caller) -> None:
    first = await ask.register()
    answer = await ask.post("/v1/tasks", GOOD)

    assert (answer.status, answer.json["uid"]) == (200, first["uid"])
    assert answer.headers["Idempotency-Replayed"] == "true"


async def test_f10_another_registration_of_a_live_one_is_a_conflict_that_names_what_differs(ask: Caller) -> None:
    first = await ask.register()
    problem = refused(await ask.post("/v1/tasks", GOOD | {"timeout": 5}), 409, "conflict")

    assert problem["uid"] == first["uid"]
    assert [each["pointer"] for each in problem["errors"]] == ["/timeout"]


async def test_the_same_object_is_registered_anew_when_it_is_done(ask: Caller) -> None:
    first = await ask.ended("quick-1")

    assert (await ask.register("quick-1"))["uid"] != first["uid"]


async def test_the_same_key_gives_the_same_task_also_after_its_end(ask: Caller, world: World) -> None:
    body = GOOD | {"id": "quick-1"}
    first = await ask.post("/v1/tasks", body, Idempotency_Key="k1")
    world.clock.advance(5)
    await ask.waited(ask.get(f"/v1/tasks/{first.json['uid']}?wait=100"))
    again = await ask.post("/v1/tasks", body, Idempotency_Key="k1")

    assert (again.status, again.json["uid"], again.json["done"]) == (200, first.json["uid"], True)
    assert "Retry-After" not in again.headers
    assert again.json["callbacks"]["delivered"] + again.json["callbacks"]["pending"] == 1


async def test_a_key_is_refused_when_it_was_used_for_another_body(ask: Caller) -> None:
    await ask.post("/v1/tasks", GOOD, Idempotency_Key="k1")

    refused(await ask.post("/v1/tasks", GOOD | {"id": "d-2"}, Idempotency_Key="k1"), 422, "idempotency-key-reused")


@pytest.mark.parametrize("key", ["a" * 129, "tab\there", "é"])
async def test_a_key_out_of_bounds_is_refused(ask: Caller, key: str) -> None:
    problem = refused(await ask.post("/v1/tasks", GOOD, Idempotency_Key=key), 400, "invalid-body")

    assert problem["errors"][0]["pointer"] == "Idempotency-Key"


@pytest.mark.parametrize(
    ("members", "code", "pointer"),
    [
        ({"id": 5}, "invalid-body", "/id"),
        ({"nonsense": 5}, "invalid-body", "/nonsense"),
        ({"action": "explode"}, "unknown-action", "/action"),
        ({"zone": "nowhere"}, "unknown-zone", "/zone"),
        ({"params": {"finish_after": "soon"}}, "invalid-body", "/params/finish_after"),
        ({"callback": {"url": "gopher://x"}}, "invalid-body", "/callback/url"),
        ({"callback": {"url": "http://x", "secret": "none"}}, "invalid-body", "/callback/secret"),
    ],
)
async def test_f9_a_wrong_member_is_named(ask: Caller, members: dict[str, Any], code: str, pointer: str) -> None:
    problem = refused(await ask.post("/v1/tasks", GOOD | members), 400, code)

    assert [each["pointer"] for each in problem["errors"]] == [pointer]


async def test_nothing_is_stored_when_only_validation_is_asked_for(ask: Caller) -> None:
    answer = await ask.post("/v1/tasks?validate_only=true", GOOD)

    assert (answer.status, answer.json["id"]) == (200, "d-1")
    assert (await ask.get("/v1/tasks")).json["tasks"] == []
    refused(await ask.post("/v1/tasks?validate_only=true", GOOD | {"zone": "nowhere"}), 400, "unknown-zone")
    refused(await ask.post("/v1/tasks?validate_only=perhaps", GOOD), 400, "invalid-body")


async def test_a_preferred_wait_gives_the_finished_task(ask: Caller) -> None:
    answer = await ask.waited(ask.post("/v1/tasks", GOOD | {"id": "quick-1"}, Prefer="respond-async, wait=100"))

    assert (answer.status, answer.json["state"]) == (200, "succeeded")
    assert answer.headers["Preference-Applied"] == "wait=100"


async def test_a_preferred_wait_gives_the_task_as_it_is_when_time_is_up(ask: Caller) -> None:
    answer = await ask.waited(ask.post("/v1/tasks", GOOD, Prefer="wait=1"))

    assert (answer.status, answer.json["done"]) == (202, False)


async def test_a_preference_that_nobody_understands_is_ignored(ask: Caller) -> None:
    assert (await ask.post("/v1/tasks", GOOD, Prefer="wait=soon; handling=lenient")).status == 202


async def test_f14_a_user_with_too_many_tasks_is_told_to_come_back(ask: Caller) -> None:
    await ask.post("/v1/tasks:batch", {"tasks": [GOOD | {"id": f"d-{number}"} for number in range(20)]}, by=OPERATOR)
    answer = await ask.post("/v1/tasks", GOOD | {"id": "one more"}, by=OPERATOR)

    refused(answer, 429, "quota-exceeded")
    assert answer.headers["Retry-After"] == "10"
    assert (await ask.post("/v1/tasks", GOOD | {"id": "one more"}, by=OTHER_OPERATOR)).status == 202


@pytest.mark.parametrize(("error", "status"), [(QueueFull("full", retry_after=10), 503), (StoreFull("no space"), 507)])
async def test_f14_a_full_house_says_so(ask: Caller, world: World, error: Exception, status: int) -> None:
    async def full(new: Any, meanwhile: Any = None) -> Any:
        raise error

    world.engine.add = full  # type: ignore[method-assign]

    assert (await ask.post("/v1/tasks", GOOD)).status == status


# ---------------------------------------------------------------------- batch


async def test_a_batch_is_registered_in_its_order(ask: Caller) -> None:
    answer = await ask.post("/v1/tasks:batch", {"tasks": [GOOD | {"id": name} for name in ("c", "a", "b")]})

    assert answer.status == 202
    assert [task["id"] for task in answer.json["tasks"]] == ["c", "a", "b"]
    assert "Idempotency-Replayed" not in answer.headers


@pytest.mark.parametrize("wrong", [{"zone": "nowhere"}, {"id": 5}, {"params": {"nonsense": 1}}, {"timeout": 99}])
async def test_a_batch_is_all_or_nothing_and_names_the_entry(ask: Caller, wrong: dict[str, Any]) -> None:
    await ask.register("taken", timeout=5)
    tasks = [GOOD | {"id": "a"}, GOOD | {"id": "taken"} | wrong, GOOD | {"id": "c"}]
    answer = await ask.post("/v1/tasks:batch", {"tasks": tasks})

    assert answer.status in (400, 409)
    assert answer.json["index"] == 1
    assert [task["id"] for task in (await ask.get("/v1/tasks")).json["tasks"]] == ["taken"]


async def test_the_entry_is_named_in_a_batch_of_one_too(ask: Caller) -> None:
    problem = refused(await ask.post("/v1/tasks:batch", {"tasks": [GOOD | {"zone": "nowhere"}]}), 400, "unknown-zone")

    assert problem["index"] == 0
    assert problem["errors"][0]["pointer"] == "/tasks/0/zone"


async def test_a_batch_of_which_a_part_is_known_shows_that_as_it_is(ask: Caller, world: World) -> None:
    known = await ask.register("known")
    world.clock.advance(1.0)
    await turns_until(lambda: ("play", "backup", "running") in world.engine.tally())
    await ask.quiet()
    answer = await ask.post("/v1/tasks:batch", {"tasks": [GOOD | {"id": name} for name in ("new", "known")]})
    new, again = answer.json["tasks"]

    assert "Idempotency-Replayed" not in answer.headers
    assert (new["id"], new["state"], new["revision"], new["last_polled_at"]) == ("new", "queued", 1, None)
    assert (again["uid"], again["state"]) == (known["uid"], "running")
    assert again["last_polled_at"] is not None


async def test_f10_a_repeated_batch_gives_the_same_tasks(ask: Caller) -> None:
    batch = {"tasks": [GOOD | {"id": "a"}, GOOD | {"id": "b"}]}
    first, second = await ask.post("/v1/tasks:batch", batch), await ask.post("/v1/tasks:batch", batch)

    assert second.headers["Idempotency-Replayed"] == "true"
    assert [task["uid"] for task in second.json["tasks"]] == [task["uid"] for task in first.json["tasks"]]


# ---------------------------------------------------------------------- listing


async def names(ask: Caller, query: str = "", by: Any = None) -> list[str]:
    answer = await ask.get(f"/v1/tasks{query}", by=by)
    assert answer.status == 200, answer.body
    return [task["id"] for task in answer.json["tasks"]]


async def test_f13_tasks_are_listed_newest_first_with_a_cursor(ask: Caller) -> None:
    await ask.quiet()
    await ask.register("a")
    await ask.register("b")
    answer = (await ask.get("/v1/tasks")).json

    assert [task["id"] for task in answer["tasks"]] == ["b", "a"]
    assert answer["next_page_token"] is None
    assert answer["cursor"] == 2


async def test_f13_every_filter_filters(ask: Caller, world: World) -> None:
    await ask.register("a", labels={"k": "v:1"}, region_task_id=7, by=OPERATOR)
    world.clock.advance(0.5)
    await ask.ended("quick-1", action="clone")

    for query in ("?state=succeeded", "?done=true", "?action=clone", "?id=quick-1", "?owner=0", "?state=failed&state=succeeded"):
        assert await names(ask, query) == ["quick-1"], query
    for query in ("?done=false", "?label=k:v:1", "?region_task_id=7", f"?owner={OPERATOR.uid}", "?action=backup&zone=play"):
        assert await names(ask, query) == ["a"], query
    assert await names(ask, "?zone=nowhere") == []
    assert await names(ask, "?created_after=2027-01-15T08:00:00.200Z") == ["quick-1"]


@pytest.mark.parametrize(
    "query",
    [
        "state=odd",
        "done=1",
        "owner=root",
        "owner=-1",
        "label=k",
        "created_after=now",
        "page_size=0",
        "page_size=501",
        "page_token=x",
    ],
)
async def test_a_bad_value_of_a_filter_is_refused_by_name(ask: Caller, query: str) -> None:
    problem = refused(await ask.get(f"/v1/tasks?{query}"), 400, "invalid-body")

    assert problem["errors"][0]["pointer"] == "?" + query.partition("=")[0]


async def test_pages_hold_every_task_once(ask: Caller) -> None:
    for number in range(5):
        await ask.register(f"d-{number}")
    found, token = [], ""
    for _ in range(3):
        answer = (await ask.get(f"/v1/tasks?zone=play&page_size=2{token}")).json
        found += [task["id"] for task in answer["tasks"]]
        token = f"&page_token={answer['next_page_token']}"

    assert found == ["d-4", "d-3", "d-2", "d-1", "d-0"]
    assert answer["next_page_token"] is None


async def test_a_page_token_is_refused_when_the_filters_have_changed(ask: Caller) -> None:
    await ask.register("a")
    await ask.register("b")
    token = (await ask.get("/v1/tasks?page_size=1&zone=play")).json["next_page_token"]

    assert await names(ask, f"?page_size=7&zone=play&page_token={token}") == ["a"]
    refused(await ask.get(f"/v1/tasks?page_size=1&page_token={token}"), 400, "invalid-body")


async def test_f14_an_operator_lists_its_own_tasks_and_a_reader_all(ask: Caller) -> None:
    await ask.register("mine", by=OPERATOR)
    await ask.register("yours", by=OTHER_OPERATOR)

    assert await names(ask, by=OPERATOR) == ["mine"]
    assert await names(ask, by=READER) == ["yours", "mine"]
    assert await names(ask, f"?owner={OPERATOR.uid}", by=OPERATOR) == ["mine"]
    refused(await ask.get(f"/v1/tasks?owner={OTHER_OPERATOR.uid}", by=OPERATOR), 403, "forbidden")


# ---------------------------------------------------------------------- one task


async def test_f13_a_task_is_shown_with_its_revision_as_etag(ask: Caller) -> None:
    await ask.quiet()
    task = await ask.register()
    path = f"/v1/tasks/{task['uid']}"
    answer = await ask.get(path)

    assert answer.headers["ETag"] == f'"{answer.json["revision"]}"'
    unchanged = await ask.get(path, If_None_Match=answer.headers["ETag"])
    assert (unchanged.status, unchanged.body) == (304, b"")
    assert (await ask.get(path, If_None_Match='"999"')).status == 200


async def test_an_unknown_task_is_not_found(ask: Caller) -> None:
    for path in ("", "/events", "/callbacks", "/explain"):
        refused(await ask.get(f"/v1/tasks/none{path}"), 404, "not-found")
    for path in ("cancel", "poll"):
        refused(await ask.post(f"/v1/tasks/none/{path}"), 404, "not-found")


async def test_f14_tasks_of_others_do_not_exist_for_an_operator(ask: Caller) -> None:
    uid = (await ask.register(by=OPERATOR))["uid"]
    for path in ("", "/events", "/callbacks", "/explain"):
        refused(await ask.get(f"/v1/tasks/{uid}{path}", by=OTHER_OPERATOR), 404, "not-found")
        assert (await ask.get(f"/v1/tasks/{uid}{path}", by=READER)).status == 200
        assert (await ask.get(f"/v1/tasks/{uid}{path}", by=OPERATOR)).status == 200
    refused(await ask.post(f"/v1/tasks/{uid}/cancel", {"stop_tracking": True}, by=OTHER_OPERATOR), 404, "not-found")
    refused(await ask("DELETE", f"/v1/tasks/{uid}", by=OTHER_OPERATOR), 404, "not-found")


async def test_f14_a_reader_changes_nothing(ask: Caller) -> None:
    uid = (await ask.register(by=OPERATOR))["uid"]

    refused(await ask.post(f"/v1/tasks/{uid}/cancel", {"stop_tracking": True}, by=READER), 403, "forbidden")
    refused(await ask("DELETE", f"/v1/tasks/{uid}", by=READER), 403, "forbidden")


async def test_f14_who_sees_tasks_of_others_still_changes_its_own_only(ask: Caller) -> None:
    uid = (await ask.register(by=OPERATOR))["uid"]
    mine = (await ask.register("mine", by=READING_OPERATOR))["uid"]
    for path, body in (("cancel", {"stop_tracking": True}), ("poll", None), ("resolve", {"state": "failed"})):
        problem = refused(await ask.post(f"/v1/tasks/{uid}/{path}", body, by=READING_OPERATOR), 403, "forbidden")
        assert f"belongs to user {OPERATOR.uid}" in problem["detail"]
    refused(await ask("DELETE", f"/v1/tasks/{uid}", by=READING_OPERATOR), 403, "forbidden")

    assert (await ask.post(f"/v1/tasks/{mine}/poll", by=READING_OPERATOR)).status == 202


async def test_f13_waiting_ends_with_the_task(ask: Caller) -> None:
    uid = (await ask.register("quick-1"))["uid"]
    answer = await ask.waited(ask.get(f"/v1/tasks/{uid}?wait=100"))

    assert (answer.status, answer.json["state"]) == (200, "succeeded")


async def test_f13_waiting_ends_without_an_error_when_time_is_up(ask: Caller) -> None:
    uid = (await ask.register())["uid"]
    answer = await ask.waited(ask.get(f"/v1/tasks/{uid}?wait=0.2"))

    assert (answer.status, answer.json["done"]) == (200, False)


async def test_waiting_for_a_change_ends_with_the_next_revision(ask: Caller) -> None:
    task = await ask.register()
    answer = await ask.waited(ask.get(f"/v1/tasks/{task['uid']}?wait=100&until=change", If_None_Match=f'"{task["revision"]}"'))

    assert answer.status == 200
    assert answer.json["revision"] > task["revision"]
    assert answer.json["done"] is False


async def test_waiting_for_a_change_answers_at_once_when_the_client_is_behind(ask: Caller) -> None:
    task = await ask.register()

    assert (await ask.get(f"/v1/tasks/{task['uid']}?wait=100&until=change", If_None_Match='"0"')).status == 200


@pytest.mark.parametrize("query", ["wait=301", "wait=-1", "wait=x", "until=never", "wait=1&until=change"])
async def test_a_bad_wait_is_refused_by_name(ask: Caller, query: str) -> None:
    uid = (await ask.register())["uid"]

    refused(await ask.get(f"/v1/tasks/{uid}?{query}", If_None_Match='"odd"'), 400, "invalid-body")


# ---------------------------------------------------------------------- changing


async def test_f13_tracked_work_is_let_go_only_on_purpose(ask: Caller) -> None:
    path = f"/v1/tasks/{(await ask.register())['uid']}/cancel"
    problem = refused(await ask.post(path), 409, "not-cancellable")
    assert problem["errors"][0]["pointer"] == "/stop_tracking"

    answer = await ask.post(path, {"stop_tracking": True})
    assert (answer.status, answer.json["state"]) == (200, "cancelled")
    assert (await ask.post(path)).status == 200


async def test_f13_running_work_is_cancelled(ask: Caller, world: World) -> None:
    task = await ask.register(params={"finish_after": 1000})
    path = f"/v1/tasks/{task['uid']}"
    while (await ask.get(path)).json["state"] == "queued":
        await ask.waited(ask.get(path + "?wait=2"))
    answer = await ask.post(path + "/cancel")

    assert (answer.status, answer.json["state"]) == (202, "cancelling")
    assert answer.headers["Location"] == path
    assert (await ask.waited(ask.get(path + "?wait=100"))).json["state"] == "cancelled"


async def test_an_ended_task_is_neither_cancelled_nor_polled(ask: Caller) -> None:
    path = f"/v1/tasks/{(await ask.ended())['uid']}"

    refused(await ask.post(path + "/cancel"), 409, "already-finished")
    refused(await ask.post(path + "/poll"), 409, "already-finished")


async def test_look_now_looks_now(ask: Caller, world: World) -> None:
    path = f"/v1/tasks/{(await ask.register())['uid']}"
    answer = await ask.post(path + "/poll", {})

    assert answer.status == 202
    assert int(answer.headers["Retry-After"]) >= 1
    refused(await ask.post(path + "/poll", {"hard": True}), 400, "invalid-body")


async def test_a_lost_task_is_resolved(ask: Caller, world: World) -> None:
    uid = (await ask.register("gone-1"))["uid"]
    path = f"/v1/tasks/{uid}"
    refused(await ask.post(path + "/resolve", {"state": "failed", "reason": "no"}), 409, "not-lost")
    await ask.waited(ask.get(path + "?wait=1"))
    world.clock.advance(500)
    assert (await ask.waited(ask.get(path + "?wait=100"))).json["state"] == "lost"
    refused(await ask.post(path + "/resolve", {"state": "lost"}), 400, "invalid-body")
    answer = await ask.post(path + "/resolve", {"state": "succeeded", "reason": "looked"})

    assert (answer.status, answer.json["state"]) == (200, "succeeded")


async def test_a_deleted_task_is_gone(ask: Caller) -> None:
    path = f"/v1/tasks/{(await ask.ended())['uid']}"
    answer = await ask("DELETE", path)

    assert (answer.status, answer.body) == (204, b"")
    refused(await ask.get(path), 410, "gone")


async def test_a_live_task_is_not_deleted(ask: Caller) -> None:
    refused(await ask("DELETE", f"/v1/tasks/{(await ask.register())['uid']}"), 409, "not-done")


async def test_f13_a_task_explains_itself(ask: Caller) -> None:
    answer = (await ask.get(f"/v1/tasks/{(await ask.register())['uid']}/explain")).json

    assert answer["waiting_for"]
    assert answer["deadline_at"]


async def test_many_wait_for_one_task_and_all_are_told(ask: Caller, world: World) -> None:
    path = f"/v1/tasks/{(await ask.register('quick-1'))['uid']}?wait=100"
    asking = [asyncio.ensure_future(ask.get(path)) for _ in range(5)]
    await turns_until(lambda: world.api.in_flight == 5)
    await ask.waited(ask.get(path))

    assert {(await each).json["state"] for each in asking} == {"succeeded"}
