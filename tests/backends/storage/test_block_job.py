"""Verdicts over every trap that was measured with QEMU 7.2."""

from typing import Any

import pytest

from task_daemon.backends.storage.block_job import Seen, possible_names, read_jobs, report
from task_daemon.backends.storage.qmp import Peer
from task_daemon.core.model import Report, State, Task, Verdict
from task_daemon.core.transitions import apply
from tests.backends.storage.making import UID, run, tracked

HERE = Peer("100.1.boot", 0, 0)


def entry(
    status: str, current: Any = 0, total: Any = 0, error: str | None = None, kind: str = "backup", **more: Any
) -> dict[str, Any]:
    job = {"id": "job-1", "type": kind, "status": status, "current-progress": current, "total-progress": total, **more}
    return job if error is None else {**job, "error": error}


def seen(*entries: Any, peer: Peer = HERE, io_status: dict[str, str] | None = None) -> Seen:
    return Seen(read_jobs(entries), peer, io_status or {})


def verdict(job: dict[str, Any], task: Task | None = None, **more: Any) -> Report:
    return report(task or tracked(), seen(job, **more))


@pytest.mark.parametrize("status", ["created", "running", "paused", "standby", "ready", "waiting", "pending", "aborting"])
@pytest.mark.parametrize(("current", "total"), [(0, 0), (5, 10), (10, 10)])
def test_f15_nothing_but_concluded_ends_a_task_whatever_the_percentage(status: str, current: int, total: int) -> None:
    seen_now = verdict(entry(status, current, total))
    assert seen_now.verdict is Verdict.GOING_ON
    assert seen_now.progress is not None
    assert seen_now.progress.percent == (None if total == 0 else min(99.0, 100 * current / total))


@pytest.mark.parametrize(
    ("current", "total", "kind", "error"),
    [
        (1, 1, "create", "Could not create 'x/y': No such file or directory"),
        (268435456, 268435456, "backup", "Operation canceled"),
        (66060288, 268435456, "backup", "No space left on device"),
        (0, 0, "stream", "Input/output error"),
    ],
)
def test_f15_concluded_with_an_error_has_failed_even_at_100_percent(current: int, total: int, kind: str, error: str) -> None:
    seen_now = verdict(entry("concluded", current, total, error, kind))
    assert (seen_now.verdict, seen_now.message) == (Verdict.FAILED, error)
    assert seen_now.progress is not None
    assert seen_now.progress.percent != 100.0


def test_f15_an_error_after_100_percent_fails_the_task() -> None:
    task = tracked()
    change = apply(task, verdict(entry("waiting", 10, 10)), 1.0)
    assert change is not None
    ended = apply(change.task, verdict(entry("concluded", 10, 10, "Operation canceled"), change.task), 2.0)
    assert ended is not None
    assert ended.task.state is State.FAILED


@pytest.mark.parametrize(("current", "total"), [(0, 0), (7, 10), (10, 10)])
def test_concluded_without_an_error_has_succeeded_whatever_the_percentage(current: int, total: int) -> None:
    """An incremental backup of nothing and the commit of an empty overlay end at 0 of 0."""
    seen_now = verdict(entry("concluded", current, total))
    assert seen_now.verdict is Verdict.SUCCEEDED
    assert seen_now.progress is not None
    assert seen_now.progress.percent == 100.0


def test_shown_percentage_does_not_fall_when_the_total_grows() -> None:
    first = apply(tracked(), verdict(entry("running", 160, 256, kind="mirror")), 1.0)
    assert first is not None
    second = apply(first.task, verdict(entry("running", 208, 376, kind="mirror"), first.task), 2.0)
    assert second is not None
    assert second.task.progress is not None
    assert (second.task.progress.percent, second.task.progress.total) == (62.5, 376)


def test_cancelled_job_is_told_by_its_text_when_it_concluded() -> None:
    assert verdict(entry("concluded", 1, 9, "Operation canceled")).cancelled
    assert not verdict(entry("concluded", 1, 9, "Input/output error")).cancelled


@pytest.mark.parametrize(
    ("job", "io_status", "words"),
    [
        (entry("paused", 3, 9), "nospace", "no space left"),
        (entry("paused", 3, 9), "failed", "I/O status 'failed'"),
        (entry("ready", 9, 9, kind="mirror"), "ok", "must complete it"),
        (entry("pending", 9, 9), "ok", "must finalize it"),
        (entry("waiting", 9, 9), "ok", "other jobs of its transaction"),
        (entry("aborting", 9, 9), "ok", "rolled back"),
    ],
)
def test_person_is_told_when_a_job_waits_for_somebody(job: dict[str, Any], io_status: str, words: str) -> None:
    seen_now = verdict(job, io_status={"job-1": io_status})
    assert seen_now.progress is not None
    assert words in (seen_now.progress.message or "")


def test_nothing_is_said_when_a_job_is_paused_shortly_at_its_start() -> None:
    seen_now = verdict(entry("paused"), io_status={"job-1": "ok"})
    assert seen_now.progress is not None
    assert seen_now.progress.message is None


def test_steps_are_not_called_bytes_when_a_job_counts_to_one() -> None:
    for kind, unit in (("create", None), ("amend", None), ("snapshot-save", None), ("backup", "bytes")):
        progress = verdict(entry("running", 0, 1, kind=kind)).progress
        assert progress is not None
        assert progress.unit == unit


def test_backup_size_is_told_as_soon_as_the_total_is_known() -> None:
    assert verdict(entry("running", 0, 0)).size is None
    assert verdict(entry("running", 0, 2199023255552)).size == 2199023255552
    assert verdict(entry("running", 0, 9), tracked("clone")).size is None


@pytest.mark.parametrize(
    "odd",
    [
        {"id": "job-1"},
        {"id": "job-1", "status": 5},
        entry("running", "many", 9),
        entry("running", None, 9),
        entry("on holiday", 1, 9),
        entry("null"),
        {**entry("concluded"), "error": 5},
    ],
)
def test_odd_entry_spoils_only_its_own_task(odd: dict[str, Any]) -> None:
    good = {**entry("concluded"), "id": "job-2"}
    now = seen(odd, 7, None, {"status": "running"}, {"id": ["x"]}, good)
    assert report(tracked(), now).verdict is Verdict.UNKNOWN
    assert report(tracked(job="job-2"), now).verdict is Verdict.SUCCEEDED


def test_f12_absent_job_is_lost_after_three_answers_when_it_was_seen_before() -> None:
    first = apply(tracked(), verdict(entry("running", 1, 9)), 1.0)
    assert first is not None
    task = first.task
    for states in (State.RUNNING, State.RUNNING, State.LOST):
        change = apply(task, report(task, seen()), 2.0)
        assert change is not None
        task = change.task
        assert task.state is states


def test_f12_absent_job_is_lost_at_once_when_another_process_answers() -> None:
    first = apply(tracked(), verdict(entry("running", 1, 9)), 1.0)
    assert first is not None
    now = report(first.task, seen(peer=Peer("200.2.boot", 0, 0)))
    assert (now.verdict, now.certain) == (Verdict.VANISHED, True)
    change = apply(first.task, now, 2.0)
    assert change is not None
    assert change.task.state is State.LOST
    assert change.task.error is not None
    assert "restarted" in change.task.error.message


def test_absent_job_is_awaited_when_it_was_never_seen() -> None:
    task = tracked()
    now = report(task, seen())
    assert (now.verdict, now.certain) == (Verdict.VANISHED, False)
    assert apply(task, now, 1.0) is None


def test_nothing_is_certain_when_the_kernel_cannot_tell_who_answers() -> None:
    nobody = Peer(None, 0, 0)
    assert not report(tracked(handle={"peer": None, "job": "job-1"}), seen(peer=HERE)).certain
    assert not report(tracked(handle={"peer": "1.1.b", "job": "job-1"}), seen(peer=nobody)).certain


def test_convention_finds_the_first_name_that_is_there() -> None:
    task = tracked(job=None)
    assert possible_names(task) == ("backup-disk-1", "task-disk-1", "disk-1")
    for name in possible_names(task):
        now = report(task, seen({**entry("running", 1, 9), "id": name}))
        assert now.handle == {"peer": HERE.identity, "job": name}


def test_seen_job_keeps_its_name_when_another_one_of_the_convention_appears() -> None:
    task = tracked(job=None, handle={"peer": HERE.identity, "job": "disk-1"})
    assert report(task, seen({**entry("running"), "id": "backup-disk-1"})).verdict is Verdict.VANISHED


def test_run_task_is_found_under_its_uid() -> None:
    task = run("backup", {}, job="something else")
    assert report(task, seen({**entry("running"), "id": f"task-{UID}"})).verdict is Verdict.GOING_ON
