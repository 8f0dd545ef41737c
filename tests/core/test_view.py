"""How things look from outside."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import json, structs

from task_daemon.core.model import CallbackTarget, Mode, Owner, Progress, State, Task, TaskError
from task_daemon.core.view import fresh_view, rfc3339, task_view
from tests.making import NOW, a_task, members

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
    view = members(task_view(a_task(), callbacks={"pending": 0, "delivered": 0, "dead": 0}))

    assert set(re.findall(r"\w+", CONTRACT)) <= set(view)
    assert set(view["progress"]) == {"percent", "done", "total", "unit", "rate", "eta_seconds", "message"}


def test_what_is_not_known_is_null_and_never_zero() -> None:
    view = members(task_view(a_task()))

    assert set(view["progress"].values()) == {None}
    assert view["started_at"] is view["size"] is view["error"] is None


def test_a_run_task_shows_the_name_its_work_has() -> None:
    task = a_task(mode=Mode.RUN, params={})

    assert members(task_view(task))["job"] == f"task-{task.uid}"


def test_flags_say_what_is_wrong_and_an_ended_task_has_no_next_poll() -> None:
    task = a_task(
        state=State.FAILED, stalled=True, adopted=True, error=TaskError("backend", "x"), progress=Progress(percent=33.333)
    )
    view = members(task_view(task, unreachable=True, next_poll_at=NOW))

    assert view["flags"] == ["stalled", "backend_unreachable", "adopted"]
    assert view["next_poll_at"] is None
    assert view["cancellable"] is False
    assert view["progress"]["percent"] == 33.33


def test_a_key_is_shown_by_its_name_only() -> None:
    view = members(task_view(a_task(callback=CallbackTarget(url="http://127.0.0.1/", secret="blue"))))

    assert view["callback"]["secret"] == "blue"


def test_members_of_the_registrant_come_back() -> None:
    assert members(task_view(a_task(extra={"x_ticket": 7})))["x_ticket"] == 7


COUNTS = {"pending": 0, "delivered": 2, "dead": 1}
TEXT = st.text(max_size=8)
TIMES = st.floats(0, 4e9)
VALUES = st.dictionaries(TEXT, TEXT | st.integers(-9, 9) | st.none(), max_size=2)
REGISTERED: dict[str, st.SearchStrategy[Any]] = {
    "id": TEXT,
    "action": TEXT,
    "zone": TEXT,
    "mode": st.sampled_from(Mode),
    "owner": st.builds(Owner, st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), st.just((7, 8))),
    "created_at": TIMES,
    "timeout": st.floats(1, 9e6),
    "job": st.none() | TEXT,
    "params": st.none() | VALUES,
    "region_task_id": st.none() | TEXT | st.integers(-9, 9),
    "callback": st.none() | st.builds(CallbackTarget, TEXT, st.just(("size", "finished")), st.none() | TEXT),
    "poll_interval": st.none() | st.floats(0.1, 9),
    "labels": st.none() | st.dictionaries(TEXT, TEXT, max_size=2),
    "extra": st.none() | st.just({"x_one": [1, {"a": None}], "x_uid": "mine"}),
}
LATER: dict[str, st.SearchStrategy[Any]] = {
    "state": st.sampled_from(State),
    "revision": st.integers(1, 9),
    "progress": st.none() | st.builds(Progress, st.floats(0, 100), st.none() | st.integers(0, 9), message=st.none() | TEXT),
    "error": st.none() | st.builds(TaskError, TEXT, TEXT, st.none() | VALUES),
    "started_at": st.none() | TIMES,
    "updated_at": st.none() | TIMES,
    "finished_at": st.none() | TIMES,
    "last_progress_at": st.none() | TIMES,
    "adopted": st.booleans(),
    "stalled": st.booleans(),
    "size": st.none() | st.integers(0, 9),
}


def plainly(task: Task, cancellable: bool, polled: float | None, next_poll: float | None, unreachable: bool) -> dict[str, Any]:
    """The contract, member by member."""
    p = task.progress or Progress()
    flags = {"stalled": task.stalled, "backend_unreachable": unreachable, "adopted": task.adopted}
    return {
        "uid": task.uid,
        "id": task.id,
        "action": task.action,
        "zone": task.zone,
        "job": task.job if task.mode == "track" else f"task-{task.uid}",
        "region_task_id": task.region_task_id,
        "params": task.params,
        "labels": task.labels or {},
        "callback": task.callback and {"url": task.callback.url, "events": task.callback.events, "secret": task.callback.secret},
        "owner": {"uid": task.owner.uid, "gid": task.owner.gid, "pid": task.owner.pid},
        "state": task.state.value,
        "done": task.done,
        "revision": task.revision,
        "mode": task.mode.value,
        "progress": {
            "percent": None if p.percent is None else round(p.percent, 2),
            "done": p.done,
            "total": p.total,
            "unit": p.unit,
            "rate": p.rate,
            "eta_seconds": p.eta_seconds,
            "message": p.message,
        },
        "error": task.error and {"kind": task.error.kind, "message": task.error.message, "backend": task.error.backend},
        "flags": [name for name, on in flags.items() if on],
        "size": task.size,
        "timeout": task.timeout,
        "poll_interval": task.poll_interval,
        "created_at": rfc3339(task.created_at),
        "started_at": rfc3339(task.started_at),
        "updated_at": rfc3339(task.updated_at or task.created_at),
        "finished_at": rfc3339(task.finished_at),
        "deadline_at": rfc3339(task.deadline_at),
        "last_polled_at": rfc3339(polled),
        "last_progress_at": rfc3339(task.last_progress_at),
        "next_poll_at": None if task.done else rfc3339(next_poll),
        "cancellable": cancellable and not task.done,
        "callbacks": COUNTS,
    } | (task.extra or {})


@given(st.fixed_dictionaries(REGISTERED | LATER), st.booleans(), st.none() | TIMES, st.none() | TIMES, st.booleans())
def test_a_view_is_the_contract_to_the_byte(
    given_members: dict[str, Any], cancellable: bool, polled: float | None, next_poll: float | None, unreachable: bool
) -> None:
    task = a_task(**given_members)
    view = task_view(
        task,
        cancellable=cancellable,
        last_polled_at=polled,
        next_poll_at=next_poll,
        unreachable=unreachable,
        callbacks=COUNTS,
    )
    told = {name: value for name, value in plainly(task, True, None, None, False).items() if name != "callbacks"}

    assert json.encode(view) == json.encode(plainly(task, cancellable, polled, next_poll, unreachable))
    assert json.encode(task_view(task)) == json.encode(told)


@given(st.fixed_dictionaries(REGISTERED), st.booleans(), st.none() | TIMES, st.booleans())
def test_the_view_of_a_fresh_task_is_that_of_any_task(
    given_members: dict[str, Any], cancellable: bool, next_poll: float | None, unreachable: bool
) -> None:
    task = a_task(**given_members)
    named: dict[str, Any] = {"cancellable": cancellable, "next_poll_at": next_poll, "unreachable": unreachable}

    assert json.encode(fresh_view(task, **named, callbacks=COUNTS)) == json.encode(task_view(task, **named, callbacks=COUNTS))


def test_the_generated_tasks_have_every_member_that_is_shown() -> None:
    """What is in neither of the two tables follows from others or is not shown."""
    elsewhere = {"uid", "deadline_at", "task_seq", "progress_told_at", "handle", "launched", "tidy", "misses"}
    elsewhere |= {"size_told", "deleted"}

    assert {field.name for field in structs.fields(Task)} == {*REGISTERED, *LATER, *elsewhere}
