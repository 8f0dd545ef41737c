from datetime import UTC, datetime
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


def test_records_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Event(seq=1).seq = 2  # type: ignore[misc]
