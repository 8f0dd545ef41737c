import threading
from collections.abc import Callable

import pytest

from task_client.client import Client
from task_client.errors import DaemonUnreachable, RequestRefused, TaskFailed, WaitTimeout
from tests.client.scripted import Reply, ScriptedServer, problem, task
from tests.waiting import eventually


def test_wait_asks_again_when_the_daemon_let_go_before_the_end(server: ScriptedServer, client: Client) -> None:
    server.on("GET", "/v1/tasks/u1", Reply(body=task()), Reply(body=task(state="succeeded")))

    assert client.wait("u1", timeout=20).succeeded
    assert [0 < float(dict(asked.query)["wait"]) <= 20 for asked in server.asked] == [True, True]


def test_wait_holds_one_request_no_longer_than_the_daemon_accepts(server: ScriptedServer, client: Client) -> None:
    server.on("GET", "/v1/tasks/u1", Reply(body=task(state="succeeded")))

    client.wait("u1")

    assert server.asked[0].query == [("wait", "60")]


def test_wait_gives_up_when_time_is_up_and_names_the_task(server: ScriptedServer, client: Client) -> None:
    server.on("GET", "/v1/tasks/u1", Reply(body=task()))

    with pytest.raises(WaitTimeout, match=r"u1: not ended within 0\.05 s; the work goes on") as caught:
        client.wait("u1", timeout=0.05)

    assert caught.value.uids == ("u1",)


def test_wait_survives_a_restart_of_the_daemon(socket_path: str, client: Client) -> None:
    """The held request breaks, then nobody is there, then a new daemon says how it ended."""
    hold = threading.Event()
    first = ScriptedServer(socket_path)
    first.on("GET", "/v1/tasks/u1", Reply(drop=True, after=hold))
    ended = []
    waiter = threading.Thread(target=lambda: ended.append(client.wait("u1", timeout=30)))
    waiter.start()
    eventually("the waiter has asked", lambda: first.asked)
    hold.set()
    first.stop()
    answers = [problem(503, "starting", "wait", retry_after=1), Reply(body=task(state="succeeded"))]
    second = ScriptedServer(socket_path, {("GET", "/v1/tasks/u1"): answers})
    waiter.join(20)
    second.stop()

    assert [each.state for each in ended] == ["succeeded"]


def test_wait_tells_the_cause_when_the_daemon_does_not_come_back(client: Client) -> None:
    with pytest.raises(DaemonUnreachable):
        client.wait("u1", timeout=0.1)


def test_wait_ends_at_once_when_the_task_is_unknown(server: ScriptedServer, client: Client) -> None:
    with pytest.raises(RequestRefused, match="not-found"):
        client.wait("u2", timeout=10)


@pytest.mark.parametrize("state", ["failed", "cancelled", "lost"])
def test_wait_raises_for_every_other_end_when_asked_to(server: ScriptedServer, client: Client, state: str) -> None:
    error = {"kind": "backend", "message": "no space left"}
    server.on("GET", "/v1/tasks/u1", Reply(body=task(state=state, error=error)))

    assert client.wait("u1").state == state
    with pytest.raises(TaskFailed, match=rf"u1 .*is {state}: no space left \(backend\)") as caught:
        client.wait("u1", raise_on_failure=True)
    assert caught.value.task.state == state


def test_wait_many_answers_all_in_the_order_given(server: ScriptedServer, client: Client) -> None:
    server.on("GET", "/v1/tasks/u1", Reply(body=task("u1")), Reply(body=task("u1", "failed")))
    server.on("GET", "/v1/tasks/u2", Reply(body=task("u2", "succeeded")))

    assert [each.state for each in client.wait_many(["u1", "u2"], timeout=10)] == ["failed", "succeeded"]


def test_wait_many_shares_one_time_out(server: ScriptedServer, client: Client) -> None:
    server.on("GET", "/v1/tasks/u1", Reply(body=task("u1", "succeeded")))
    server.on("GET", "/v1/tasks/u2", Reply(body=task("u2")))

    with pytest.raises(WaitTimeout) as caught:
        client.wait_many(["u1", "u2"], timeout=0.05)

    assert caught.value.uids == ("u2",)


def test_wait_for_any_answers_those_that_ended_already(server: ScriptedServer, client: Client) -> None:
    server.on("GET", "/v1/tasks", Reply(body={"tasks": [], "cursor": 41}))
    server.on("GET", "/v1/tasks/u1", Reply(body=task("u1")))
    server.on("GET", "/v1/tasks/u2", Reply(body=task("u2", "lost")))

    assert [each.uid for each in client.wait_many(["u1", "u2"], until="any")] == ["u2"]


def test_wait_for_any_follows_the_events_from_before_the_first_look(server: ScriptedServer, client: Client) -> None:
    """The cursor is taken before the tasks are looked at, so an end between the two is not missed."""
    others = {"events": [{"seq": 42, "uid": "u9", "type": "task.failed"}, {"seq": 43, "uid": "u1", "type": "task.progress"}]}
    end = {"events": [{"seq": 44, "uid": "u2", "type": "task.succeeded"}]}
    server.on("GET", "/v1/tasks", Reply(body={"tasks": [], "cursor": 41}))
    server.on("GET", "/v1/events", Reply(body=others), Reply(body=end))
    server.on("GET", "/v1/tasks/u1", Reply(body=task("u1")))
    server.on("GET", "/v1/tasks/u2", Reply(body=task("u2")), Reply(body=task("u2", "succeeded")))

    (found,) = client.wait_many(["u1", "u2"], until="any", timeout=10)

    assert found.uid == "u2"
    paths = [asked.path for asked in server.asked]
    assert paths == ["/v1/tasks", "/v1/tasks/u1", "/v1/tasks/u2", "/v1/events", "/v1/events", "/v1/tasks/u2"]
    assert [dict(asked.query)["after"] for asked in server.asked if asked.path == "/v1/events"] == ["41", "43"]


def test_wait_for_any_looks_afresh_when_the_cursor_has_expired(server: ScriptedServer, client: Client) -> None:
    server.on("GET", "/v1/tasks", Reply(body={"tasks": [], "cursor": 41}))
    server.on("GET", "/v1/events", problem(410, "cursor-expired", "the oldest one is 900"))
    server.on("GET", "/v1/tasks/u1", Reply(body=task("u1")), Reply(body=task("u1", "succeeded")))

    assert client.wait_many(["u1"], until="any", timeout=10)[0].succeeded


def test_wait_for_any_gives_up_when_time_is_up(server: ScriptedServer, client: Client) -> None:
    server.on("GET", "/v1/tasks", Reply(body={"tasks": [], "cursor": 41}))
    server.on("GET", "/v1/events", Reply(body={"events": []}))
    server.on("GET", "/v1/tasks/u1", Reply(body=task("u1")))

    with pytest.raises(WaitTimeout):
        client.wait_many(["u1"], until="any", timeout=0.05)


def test_watch_yields_changes_only(server: ScriptedServer, client: Client) -> None:
    server.on(
        "GET", "/v1/tasks/u1",
        Reply(body=task(revision=1)), Reply(304), Reply(body=task(revision=1)), Reply(body=task(revision=2)),
        Reply(body=task(state="succeeded", revision=3)),
    )  # fmt: skip

    assert [each.revision for each in client.watch("u1", timeout=10)] == [1, 2, 3]
    assert [asked.headers.get("if-none-match") for asked in server.asked] == [None, '"1"', '"1"', '"1"', '"2"']


def test_only_one_warning_is_logged_when_an_outage_lasts(
    make_client: Callable[..., Client], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(DaemonUnreachable):
        make_client().wait("u1", timeout=0.2)

    assert len([record for record in caplog.records if "trying again" in record.getMessage()]) == 1


def events_of(*found: tuple[int, str, str]) -> Reply:
    rows = [{"seq": seq, "uid": uid, "type": kind} for seq, uid, kind in found]
    return Reply(body={"events": rows, "cursor": max((seq for seq, _, _ in found), default=9)})


def test_watch_many_tells_each_change_until_all_have_ended(server: ScriptedServer, client: Client) -> None:
    """Ends come by the stream of events; a task without an event is not asked for again before its time."""
    server.on("GET", "/v1/tasks", Reply(body={"tasks": [], "cursor": 9}))
    first, second = events_of((10, "u2", "task.succeeded"), (11, "u9", "task.failed")), events_of((12, "u1", "task.failed"))
    server.on("GET", "/v1/events", first, second)
    server.on("GET", "/v1/tasks/u1", Reply(body=task("u1")), Reply(body=task("u1", "failed", revision=3)))
    server.on("GET", "/v1/tasks/u2", Reply(body=task("u2")), Reply(body=task("u2", "succeeded", revision=2)))

    seen = [(each.uid, each.state) for each in client.watch_many(["u1", "u2", "u1"], every=1000)]

    assert seen == [("u1", "running"), ("u2", "running"), ("u2", "succeeded"), ("u1", "failed")]
    assert [asked.path for asked in server.asked].count("/v1/tasks/u1") == 2


def test_watch_many_looks_at_progress_in_between(server: ScriptedServer, client: Client) -> None:
    """No event comes; the progress and the end are seen all the same."""
    server.on("GET", "/v1/tasks", Reply(body={"tasks": [], "cursor": 9}))
    server.on("GET", "/v1/events", events_of())
    moving = Reply(body=task("u1", revision=2, progress={"percent": 5.0}))
    server.on("GET", "/v1/tasks/u1", Reply(body=task("u1")), Reply(304), moving, Reply(body=task("u1", "lost", revision=3)))

    seen = [(each.state, each.progress.percent) for each in client.watch_many(["u1"], every=0.001)]

    assert seen == [("running", None), ("running", 5.0), ("lost", None)]


def test_watch_many_names_those_that_have_not_ended_when_time_is_up(server: ScriptedServer, client: Client) -> None:
    server.on("GET", "/v1/tasks", Reply(body={"tasks": [], "cursor": 9}))
    server.on("GET", "/v1/events", events_of())
    server.on("GET", "/v1/tasks/u1", Reply(body=task("u1", "succeeded")))
    server.on("GET", "/v1/tasks/u2", Reply(body=task("u2")))

    with pytest.raises(WaitTimeout) as caught:
        list(client.watch_many(["u1", "u2"], timeout=0.05, every=0.01))

    assert caught.value.uids == ("u2",)


def test_watch_many_begins_anew_when_its_cursor_has_expired(server: ScriptedServer, client: Client) -> None:
    server.on("GET", "/v1/tasks", Reply(body={"tasks": [], "cursor": 9}))
    server.on("GET", "/v1/events", problem(410, "cursor-expired", "too old"))
    server.on("GET", "/v1/tasks/u1", Reply(body=task("u1")), Reply(body=task("u1", "succeeded", revision=2)))

    assert [each.done for each in client.watch_many(["u1"], every=1000)] == [False, True]
