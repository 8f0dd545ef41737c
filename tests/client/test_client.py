from datetime import UTC, datetime

import pytest

from task_client.client import Client
from task_client.errors import ClientError, DaemonUnreachable
from tests.client.scripted import Asked, Reply, ScriptedServer, task


def last(server: ScriptedServer) -> Asked:
    return server.asked[-1]


def test_registration_carries_only_what_was_given(server: ScriptedServer, client: Client) -> None:
    server.on("POST", "/v1/tasks", Reply(202, task()))

    client.register("disk-1", "backup", "vm1")
    plain = last(server)
    client.register(
        "disk-1", "backup", "vm1", params={"target": "/b"}, region_task_id=7, callback="http://127.0.0.1:1/x",
        timeout=60, poll_interval=0.5, labels={"rack": "a7"}, idempotency_key="mine", wait=2,
    )  # fmt: skip
    full = last(server)

    assert plain.body == {"id": "disk-1", "action": "backup", "zone": "vm1"}
    assert len(plain.headers["idempotency-key"]) == 32
    assert "prefer" not in plain.headers
    assert full.body == {
        "id": "disk-1", "action": "backup", "zone": "vm1", "params": {"target": "/b"}, "region_task_id": 7,
        "callback": {"url": "http://127.0.0.1:1/x"}, "timeout": 60, "poll_interval": 0.5, "labels": {"rack": "a7"},
    }  # fmt: skip
    assert (full.headers["idempotency-key"], full.headers["prefer"]) == ("mine", "wait=2")


def test_registration_starts_work_when_params_are_empty_but_given(server: ScriptedServer, client: Client) -> None:
    """An empty object is not an absent one: it means *run*."""
    server.on("POST", "/v1/tasks", Reply(202, task()))

    client.register("disk-1", "backup", "vm1", params={})

    assert last(server).body["params"] == {}


def test_many_are_registered_in_one_request(server: ScriptedServer, client: Client) -> None:
    server.on("POST", "/v1/tasks:batch", Reply(202, {"tasks": [task("u1"), task("u2")]}))
    drafts = [{"id": f"d{n}", "action": "backup", "zone": "vm1", "callback": "http://127.0.0.1/"} for n in (1, 2)]

    assert [each.uid for each in client.register_many(drafts)] == ["u1", "u2"]

    assert last(server).body["tasks"][1] == {**drafts[1], "callback": {"url": "http://127.0.0.1/"}}
    assert "idempotency-key" in last(server).headers


def test_f13_list_goes_through_all_pages_with_its_filters(server: ScriptedServer, client: Client) -> None:
    pages = [{"tasks": [task("u2")], "next_page_token": "t/1"}, {"tasks": [task("u1")], "next_page_token": None}]
    server.on("GET", "/v1/tasks", *(Reply(body=page) for page in pages))

    found = client.list(
        state=["queued", "running"], done=False, zone="vm1", labels={"rack": "a7"}, created_after=datetime(2026, 1, 2, tzinfo=UTC)
    )

    assert [each.uid for each in found] == ["u2", "u1"]
    filters = [
        ("label", "rack:a7"), ("state", "queued"), ("state", "running"), ("done", "false"), ("zone", "vm1"),
        ("created_after", "2026-01-02T00:00:00+00:00"),
    ]  # fmt: skip
    assert [asked.query for asked in server.asked] == [filters, [*filters, ("page_token", "t/1")]]


def test_list_asks_for_the_next_page_only_when_it_is_needed(server: ScriptedServer, client: Client) -> None:
    server.on("GET", "/v1/tasks", Reply(body={"tasks": [task("u2"), task("u1")], "next_page_token": "more"}))

    next(client.list())

    assert len(server.asked) == 1


def test_f13_get_looks_at_one_task(server: ScriptedServer, client: Client) -> None:
    server.on("GET", "/v1/tasks/u1", Reply(body=task()))

    assert client.get("u1").state == "running"
    assert last(server).query == []


def test_get_answers_none_when_the_revision_is_the_known_one(server: ScriptedServer, client: Client) -> None:
    server.on("GET", "/v1/tasks/u1", Reply(304))

    assert client.get("u1", wait=0.5, until="change", etag=7) is None
    assert last(server).query == [("wait", "0.5"), ("until", "change")]
    assert last(server).headers["if-none-match"] == '"7"'


def test_f13_cancel_says_when_only_the_watching_is_to_end(server: ScriptedServer, client: Client) -> None:
    server.on("POST", "/v1/tasks/u1/cancel", Reply(202, task(state="cancelling")))

    assert client.cancel("u1").state == "cancelling"
    assert last(server).body == {}
    client.cancel("u1", stop_tracking=True)
    assert last(server).body == {"stop_tracking": True}


def test_uid_cannot_leave_its_place_in_the_path(server: ScriptedServer, client: Client) -> None:
    server.on("GET", "/v1/tasks/..%2Finfo%3Fx", Reply(body=task()))

    client.get("../info?x")

    assert last(server).path == "/v1/tasks/..%2Finfo%3Fx"


def test_small_requests_go_where_the_contract_says(server: ScriptedServer, client: Client) -> None:
    server.on("POST", "/v1/tasks/u1/poll", Reply(202))
    server.on("POST", "/v1/tasks/u1/resolve", Reply(200, task(state="succeeded")))
    server.on("DELETE", "/v1/tasks/u1", Reply(204))
    server.on("GET", "/v1/tasks/u1/explain", Reply(200, {"why": "queued"}))
    server.on("GET", "/v1/zones", Reply(200, {"zones": [{"zone": "vm1"}]}))
    server.on("POST", "/v1/zones/vm1/pause", Reply(200, {"zone": "vm1", "state": "paused"}))
    server.on("POST", "/v1/zones/vm1/resume", Reply(200, {"zone": "vm1", "state": "ok"}))
    server.on("GET", "/v1/actions", Reply(200, {"actions": [{"action": "backup"}]}))
    server.on("GET", "/v1/info", Reply(200, {"version": "1"}))
    server.on("POST", "/v1/callbacks/c%2F1/replay", Reply(202, {"id": "c/1", "state": "pending"}))
    server.on("POST", "/v1/callbacks/c%2F1/ack", Reply(200, {"id": "c/1", "state": "acked"}))
    server.on("GET", "/v1/callbacks/c%2F1", Reply(200, {"id": "c/1", "attempts": 3}))

    client.poll("u1")
    assert client.resolve("u1", "succeeded", "seen").succeeded
    assert last(server).body == {"state": "succeeded", "reason": "seen"}
    client.delete("u1")
    assert client.explain("u1") == {"why": "queued"}
    assert client.zones() == [{"zone": "vm1"}]
    assert client.pause_zone("vm1")["state"] == "paused"
    assert client.resume_zone("vm1")["state"] == "ok"
    assert client.actions() == [{"action": "backup"}]
    assert client.info() == {"version": "1"}
    assert client.callback("c/1").attempts == 3
    assert client.replay("c/1").state == "pending"
    assert client.ack("c/1").state == "acked"


def test_events_of_all_tasks_come_page_by_page_until_there_are_no_more(server: ScriptedServer, client: Client) -> None:
    first = {"events": [{"seq": 5, "uid": "u1", "type": "task.running"}, {"seq": 6, "uid": "u1", "type": "task.succeeded"}]}
    server.on("GET", "/v1/events", Reply(body=first), Reply(body={"events": []}))

    assert [event.seq for event in client.events(after=4)] == [5, 6]
    assert [dict(asked.query)["after"] for asked in server.asked] == ["4", "6"]


def test_events_of_one_task_are_its_history(server: ScriptedServer, client: Client) -> None:
    event = {"seq": 5, "uid": "u1", "task_seq": 2, "type": "task.running", "time": "2026-01-02T03:04:05.000Z", "detail": {}}
    server.on("GET", "/v1/tasks/u1/events", Reply(body={"events": [event], "cursor": 5}), Reply(body={"events": [], "cursor": 5}))

    (found,) = client.events("u1")

    assert (found.type, found.time, found.raw) == ("task.running", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), event)


def test_callbacks_are_those_of_a_task_or_of_a_state(server: ScriptedServer, client: Client) -> None:
    rows = {"callbacks": [{"id": "c1", "state": "dead", "tries": [{"status": 500}]}, {"id": "c2", "state": "delivered"}]}
    server.on("GET", "/v1/callbacks", Reply(body=rows))
    server.on("GET", "/v1/tasks/u1/callbacks", Reply(body=rows))

    assert [each.id for each in client.callbacks(state="dead")] == ["c1"]
    assert last(server).query == [("state", "dead")]
    assert [each.id for each in client.callbacks("u1")] == ["c1", "c2"]
    assert client.callbacks("u1", "dead")[0].tries == ({"status": 500},)


def test_callbacks_come_from_all_pages(server: ScriptedServer, client: Client) -> None:
    pages = [{"callbacks": [{"id": "c1"}], "next_page_token": "t"}, {"callbacks": [{"id": "c2"}], "next_page_token": None}]
    server.on("GET", "/v1/callbacks", *(Reply(body=page) for page in pages))

    assert [each.id for each in client.callbacks()] == ["c1", "c2"]


@pytest.mark.parametrize(
    ("uid", "progress", "path", "query"),
    [
        (None, False, "/v1/events", []),
        (None, True, "/v1/events", [("progress", "true")]),
        ("u1", False, "/v1/tasks/u1/events", []),
    ],
)
def test_events_are_followed_as_a_stream(
    server: ScriptedServer, client: Client, uid: str | None, progress: bool, path: str, query: list[tuple[str, str]]
) -> None:
    event = b'id: 9\nevent: task.running\ndata: {"seq":9,"uid":"u1","type":"task.running"}\n\n'
    server.on("GET", path, Reply(body=event))

    following = client.events(uid, after=5, follow=not progress, progress=progress)

    assert [next(following).seq for _ in range(2)] == [9, 9]
    assert {asked.headers["accept"] for asked in server.asked} == {"text/event-stream"}
    assert [(asked.path, asked.query, asked.headers["last-event-id"]) for asked in server.asked] == [
        (path, query, "5"),
        (path, query, "9"),
    ]
    following.close()  # type: ignore[attr-defined]


def test_ping_is_true_when_the_old_word_comes_back(server: ScriptedServer, client: Client) -> None:
    server.on("GET", "/ping", Reply(body="pong"), Reply(body="what?"))

    assert client.ping()
    assert not client.ping()


def test_not_ready_is_an_answer_and_not_an_error(server: ScriptedServer, client: Client) -> None:
    server.on("GET", "/readyz", Reply(503, {"code": "draining"}, {"Retry-After": "1"}))
    server.on("GET", "/healthz", Reply(200))

    assert not client.readyz()
    assert client.healthz()


def test_readiness_raises_when_nobody_is_there(client: Client) -> None:
    with pytest.raises(DaemonUnreachable):
        client.readyz()


def test_list_is_refused_when_the_answer_has_no_tasks(server: ScriptedServer, client: Client) -> None:
    server.on("GET", "/v1/tasks", Reply(body={"jobs": []}))

    with pytest.raises(ClientError, match="no list 'tasks'"):
        next(client.list())
