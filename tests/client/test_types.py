from collections.abc import Callable
from copy import copy, deepcopy
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pickle import dumps, loads
from typing import Any

import pytest

from task_client.types import Event, Task
from tests.client.scripted import task


def test_task_is_read_with_progress_error_and_times() -> None:
    raw = task(
        state="failed",
        progress={"percent": 41.5, "done": 4, "total": 10, "unit": "bytes", "rate": 2.0, "eta_seconds": 3.0, "message": "m"},
        error={"kind": "backend", "message": "no space", "backend": {"code": 28}},
        flags=["stalled"],
        owner={"uid": 7, "gid": 8, "pid": 9},
    )

    found = Task.read(raw)

    assert (found.progress.percent, found.progress.total, found.progress.eta_seconds) == (41.5, 10, 3.0)
    assert found.error is not None
    assert (found.error.kind, found.error.message, found.error.backend) == ("backend", "no space", {"code": 28})
    assert (found.flags, found.owner.pid, found.done, found.succeeded) == (("stalled",), 9, True, False)
    assert found.created_at == datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)


def test_unknown_progress_is_none_and_not_zero() -> None:
    found = Task.read(task())

    assert (found.progress.percent, found.error, found.finished_at) == (None, None, None)


def test_new_members_are_kept_raw_when_the_daemon_is_newer() -> None:
    raw = task(x_mine=1, priority=3, progress={"percent": 1.0, "phase": "copy"}, error={"kind": "new", "message": "m", "more": 1})

    found = Task.read(raw)

    assert found.raw == raw
    assert found.progress.percent == 1.0


@pytest.mark.parametrize("raw", [{"uid": "u"}, {"uid": "u", "state": "lost", "created_at": "yesterday", "progress": 7}])
def test_reading_goes_on_when_members_are_missing_or_odd(raw: dict[str, Any]) -> None:
    found = Task.read(raw)

    assert (found.uid, found.created_at, found.progress.percent) == ("u", None, None)
    assert found.done is (found.state == "lost")


def told(**members: Any) -> tuple[Task, list[int]]:
    """A task nobody has looked at yet, and how often it was asked for."""
    asked: list[int] = []
    raw = task(owner={"uid": 7}, labels={"rack": "a7"}, **members)
    return Task.told_by(lambda: asked.append(1) or raw, "u1"), asked  # type: ignore[func-returns-value]


def test_task_is_asked_for_once_and_when_it_is_looked_at() -> None:
    found, asked = told()

    assert (found.uid, asked) == ("u1", [])
    assert (found.state, found.owner.uid, found.labels, found.error, found.timeout) == ("running", 7, {"rack": "a7"}, None, None)
    assert found.created_at == datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
    assert found.progress is found.progress
    assert asked == [1]


def test_task_is_the_same_record_whether_it_was_looked_at_or_not() -> None:
    made = Task(uid="u1", id="disk-1", action="backup", zone="vm1", state="running", done=False)
    fresh = told()[0]
    looked_at = told()[0]
    assert looked_at.labels

    assert fresh == looked_at == Task.read(looked_at.raw)
    assert fresh != made
    assert told()[0] != told(state="lost")[0]
    assert repr(told()[0]) == repr(looked_at)
    assert repr(made).startswith(
        "Task(uid='u1', id='disk-1', action='backup', zone='vm1', state='running', done=False, revision=0,"
    )
    assert (made.flags, made.raw, made.owner.uid) == ((), {}, None)
    assert replace(told()[0], state="lost").state == "lost"
    assert asdict(told()[0]) == asdict(looked_at)


@pytest.mark.parametrize("copied", [copy, deepcopy, lambda found: loads(dumps(found))])
def test_copy_is_whole_when_nobody_had_looked_at_the_task(copied: Callable[[Task], Task]) -> None:
    found = copied(told()[0])

    assert (found, found.raw) == (told()[0], told()[0].raw)


def test_task_has_no_other_members() -> None:
    for found in (told()[0], Task.read({}), Task(uid="u", id="", action="", zone="", state="", done=False)):
        with pytest.raises(AttributeError, match=r"'Task' object has no attribute 'percent'"):
            _ = found.percent  # type: ignore[attr-defined]
        with pytest.raises(AttributeError):
            found.state = "lost"  # type: ignore[misc]
        assert not hasattr(found, "__dict__")


def test_records_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Event(seq=1).seq = 2  # type: ignore[misc]
