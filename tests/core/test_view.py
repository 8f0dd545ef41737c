"""How things look from outside."""

import re

import pytest

from task_daemon.core.model import CallbackTarget, Mode, Progress, State, TaskError
from task_daemon.core.view import rfc3339, task_view
from tests.making import NOW, a_task

CONTRACT = """
uid, id, action, zone, job, region_task_id, params, labels, callback, owner, state, done, revision, mode, progress, error,
flags, created_at, started_at, updated_at, finished_at, deadline_at, last_polled_at, last_progress_at, next_poll_at,
callbacks, cancellable
"""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1_800_000_000.1234, "2027-01-15T08:00:00.123Z"),
        (1_800_000_000.9996, "2027-01-15T08:00:01.000Z"),
        (951_782_400.5, "2000-02-29T00:00:00.500Z"),
        (None, None),
    ],
)
def test_times_are_utc_with_milliseconds(seconds: float | None, text: str | None) -> None:
    assert rfc3339(seconds) == text


def test_a_task_shows_every_member_of_the_contract() -> None:
    view = task_view(a_task(), callbacks={"pending": 0, "delivered": 0, "dead": 0})

    assert set(re.findall(r"\w+", CONTRACT)) <= set(view)
    assert set(view["progress"]) == {"percent", "done", "total", "unit", "rate", "eta_seconds", "message"}


def test_what_is_not_known_is_null_and_never_zero() -> None:
    view = task_view(a_task())

    assert set(view["progress"].values()) == {None}
    assert view["started_at"] is view["size"] is view["error"] is None


def test_a_run_task_shows_the_name_its_work_has() -> None:
    task = a_task(mode=Mode.RUN, params={})

    assert task_view(task)["job"] == f"task-{task.uid}"


def test_flags_say_what_is_wrong_and_an_ended_task_has_no_next_poll() -> None:
    task = a_task(
        state=State.FAILED, stalled=True, adopted=True, error=TaskError("backend", "x"), progress=Progress(percent=33.333)
    )
    view = task_view(task, unreachable=True, next_poll_at=NOW)

    assert view["flags"] == ["stalled", "backend_unreachable", "adopted"]
    assert view["next_poll_at"] is None
    assert view["cancellable"] is False
    assert view["progress"]["percent"] == 33.33


def test_a_key_is_shown_by_its_name_only() -> None:
    view = task_view(a_task(callback=CallbackTarget(url="http://127.0.0.1/", secret="blue")))

    assert view["callback"]["secret"] == "blue"


def test_members_of_the_registrant_come_back() -> None:
    assert task_view(a_task(extra={"x_ticket": 7}))["x_ticket"] == 7
