"""Who is told what."""

from collections.abc import Sequence

from msgspec import json

from task_daemon.core import transitions
from task_daemon.core.model import CallbackTarget, Change, Progress, Report, State, Task, Verdict
from task_daemon.core.ports import Call
from task_daemon.tracking.notify import Notices
from tests.making import NOW, a_task


def lane(url: str) -> str:
    return "/".join(url.split("/")[:3])


def region(task: Task, outcome: str, error: str | None) -> Sequence[Call]:
    return [Call("PUT", f"/disks/{task.id}", {"outcome": outcome}), Call("POST", "/tasks/7", {"error": error})]


def told(task: Task, report: Report, notices: Notices) -> Change:
    change = transitions.apply(task, report, NOW + 1)
    assert change is not None
    return notices.attach(change)


END = Report(Verdict.SUCCEEDED)


def test_an_end_with_a_callback_is_one_webhook_to_its_lane() -> None:
    task = a_task(callback=CallbackTarget(url="http://127.0.0.1:9/hook"))
    change = told(task, END, Notices(lane, region))

    assert [(d.via, d.target, d.type, d.url) for d in change.deliveries] == [
        ("webhook", "http://127.0.0.1:9", "task.succeeded", "http://127.0.0.1:9/hook")
    ]
    assert json.decode(change.deliveries[0].body)["task"]["state"] == "succeeded"


def test_an_end_without_a_callback_is_the_region_s_calls_in_their_order() -> None:
    change = told(a_task(), END, Notices(lane, region))

    assert [(d.part, d.method, d.url, d.target) for d in change.deliveries] == [
        (0, "PUT", "/disks/disk-1", "region"),
        (1, "POST", "/tasks/7", "region"),
    ]


def test_every_end_but_success_is_a_failure_for_the_region() -> None:
    task = a_task(state=State.RUNNING)
    lost = told(task, Report(Verdict.VANISHED, certain=True), Notices(lane, region))
    cancelled = transitions.cancel(task, NOW, stop_tracking=True)
    assert cancelled is not None

    assert json.decode(lost.deliveries[0].body) == {"outcome": "failed"}
    assert json.decode(Notices(lane, region).attach(cancelled).deliveries[0].body) == {"outcome": "failed"}


def test_nobody_is_told_without_callback_and_region() -> None:
    assert told(a_task(), END, Notices(lane, None)).deliveries == ()


def test_an_event_that_nobody_asked_for_is_not_told() -> None:
    task = a_task(callback=CallbackTarget(url="http://127.0.0.1:9/hook"))

    assert told(task, Report(Verdict.GOING_ON, size=5), Notices(lane, region)).deliveries == ()


def test_opted_in_events_are_told() -> None:
    task = a_task(callback=CallbackTarget(url="http://127.0.0.1:9/hook", events=("size", "finished")))
    change = told(task, Report(Verdict.GOING_ON, size=5), Notices(lane, region))

    assert [(d.type, d.task_seq) for d in change.deliveries] == [("task.size", 3)]


def test_ids_are_the_same_whenever_they_are_made_and_differ_between_events() -> None:
    task = a_task(callback=CallbackTarget(url="http://127.0.0.1:9/hook"))
    first, again = told(task, END, Notices(lane, None)), told(task, END, Notices(lane, None))

    assert first.deliveries[0].id == again.deliveries[0].id
    assert "." not in first.deliveries[0].id


def test_a_large_body_leaves_the_params_out() -> None:
    task = a_task(callback=CallbackTarget(url="http://127.0.0.1:9/hook"), params={"argv": ["x" * 30_000]})
    change = told(task, END, Notices(lane, None))

    assert len(change.deliveries[0].body) < 20_000
    assert json.decode(change.deliveries[0].body)["task"]["params"] is None


def test_a_lost_task_resolved_as_a_success_is_told_again() -> None:
    lost = told(a_task(state=State.RUNNING), Report(Verdict.VANISHED, certain=True), Notices(lane, region)).task
    good = Notices(lane, region).attach(transitions.resolve(lost, State.SUCCEEDED, "compared", NOW))
    bad = Notices(lane, region).attach(transitions.resolve(lost, State.FAILED, "empty", NOW))

    assert json.decode(good.deliveries[0].body) == {"outcome": "finished"}
    assert bad.deliveries == ()


def test_progress_is_shown_in_what_is_told() -> None:
    task = a_task(state=State.RUNNING, callback=CallbackTarget(url="http://127.0.0.1:9/hook", events=("progress",)))
    first = transitions.apply(task, Report(Verdict.GOING_ON, progress=Progress(percent=1.0, done=1, total=100)), NOW)
    assert first is not None
    change = Notices(lane, None).attach(first)

    assert json.decode(change.deliveries[0].body)["task"]["progress"]["percent"] == 1.0
