"""Every way a task may change."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from task_daemon.core import transitions
from task_daemon.core.errors import AlreadyFinished, NotCancellable, NotLost
from task_daemon.core.model import FINAL, CallbackTarget, Mode, Progress, Report, State, Task, Verdict
from tests.making import NOW, a_task


def run_task(**members: Any) -> Task:
    return a_task(mode=Mode.RUN, params={}, **members)


def going(done: int | None = None, total: int | None = None, **more: Any) -> Report:
    percent = None if done is None or not total else 100.0 * done / total
    return Report(Verdict.GOING_ON, progress=Progress(percent=percent, done=done, total=total, unit="bytes"), **more)


def after(task: Task, *reports: Report, step: float = 10.0, now: float = NOW) -> Task:
    for report in reports:
        now += step
        change = transitions.apply(task, report, now)
        task = task if change is None else change.task
    return task


def test_a_tracked_task_waits_until_it_is_seen() -> None:
    task = a_task()

    assert transitions.apply(task, Report(Verdict.UNKNOWN), NOW) is None
    assert transitions.apply(task, Report(Verdict.VANISHED), NOW) is None


def test_the_first_sight_makes_it_running_with_one_event() -> None:
    change = transitions.apply(a_task(), going(10, 100), NOW + 5)

    assert change is not None
    assert change.task.state is State.RUNNING
    assert change.task.started_at == NOW + 5
    assert [event.type for event in change.events] == ["task.running"]
    assert change.events[0].task_seq == change.task.task_seq == 2


def test_the_percentage_never_falls_while_the_raw_numbers_may() -> None:
    task = after(a_task(), going(160, 256), going(208, 376))

    assert task.progress is not None
    assert task.progress.percent == 62.5
    assert (task.progress.done, task.progress.total) == (208, 376)


def test_rate_and_eta_come_from_two_looks() -> None:
    task = after(a_task(), going(0, 1000), going(100, 1000))

    assert task.progress is not None
    assert task.progress.rate == 10.0
    assert task.progress.eta_seconds == 90.0


def test_unknown_progress_stays_unknown() -> None:
    task = after(a_task(), Report(Verdict.GOING_ON), Report(Verdict.GOING_ON))

    assert task.progress is None


def test_a_look_that_learns_nothing_changes_nothing() -> None:
    task = after(a_task(), going(5, 10))

    assert transitions.apply(task, going(5, 10), NOW + 20) is None


def test_progress_alone_is_not_durable() -> None:
    change = transitions.apply(after(a_task(), going(5, 10)), going(6, 10), NOW + 20)

    assert change is not None
    assert not change.durable
    assert change.task.revision == change.before.revision + 1


def test_f15_hundred_percent_with_an_error_is_a_failure() -> None:
    task = after(a_task(), going(100, 100))
    report = Report(Verdict.FAILED, progress=Progress(percent=100.0, done=100, total=100), message="No space left on device")
    change = transitions.apply(task, report, NOW)

    assert change is not None
    assert change.task.state is State.FAILED
    assert change.task.error is not None
    assert change.task.error.message == "No space left on device"
    assert [event.type for event in change.events] == ["task.failed"]


def test_f15_hundred_percent_alone_is_not_an_end() -> None:
    assert after(a_task(), going(100, 100), going(100, 100)).state is State.RUNNING


def test_f12_work_that_was_seen_and_is_gone_is_lost_after_three_good_answers() -> None:
    task = after(a_task(), going(1, 2), Report(Verdict.VANISHED), Report(Verdict.VANISHED))
    assert task.state is State.RUNNING

    task = after(task, Report(Verdict.VANISHED))

    assert task.state is State.LOST
    assert task.error is not None
    assert task.error.kind == "lost"


def test_f12_one_sight_in_between_starts_the_count_again() -> None:
    gone = Report(Verdict.VANISHED)
    task = after(a_task(), going(1, 9), gone, gone, going(2, 9), gone, gone)

    assert task.state is State.RUNNING


def test_f12_certain_evidence_needs_no_second_look() -> None:
    task = after(a_task(), going(1, 2), Report(Verdict.VANISHED, certain=True, message="the storage was restarted"))

    assert task.state is State.LOST
    assert task.error is not None
    assert task.error.message == "the storage was restarted"


def test_f11_the_deadline_is_wall_time_from_registration() -> None:
    task = a_task(timeout=60.0)

    assert transitions.expire(task, NOW + 59.9) is None
    change = transitions.expire(task, NOW + 60)
    assert change is not None
    assert change.task.state is State.FAILED
    assert change.task.error is not None
    assert change.task.error.kind == "timeout"


def test_a_zone_that_is_not_configured_any_more_is_named_at_the_deadline() -> None:
    change = transitions.expire(a_task(timeout=60.0), NOW + 60, zone_known=False)

    assert change is not None
    assert change.task.error is not None
    assert change.task.error.kind == "zone-removed"


def test_cancelling_tracked_work_says_that_it_only_stops_the_watching() -> None:
    task = after(a_task(), going(1, 2))

    with pytest.raises(NotCancellable, match="stop_tracking"):
        transitions.cancel(task, NOW)
    change = transitions.cancel(task, NOW, stop_tracking=True)
    assert change is not None
    assert change.task.state is State.CANCELLED


def test_a_run_task_that_never_started_is_cancelled_at_once() -> None:
    change = transitions.cancel(run_task(), NOW)

    assert change is not None
    assert change.task.state is State.CANCELLED


def test_i2_a_run_task_whose_start_is_on_disk_is_cancelled_through_the_backend() -> None:
    launched = transitions.launch(run_task(), {"pid": 1}, NOW).task

    change = transitions.cancel(launched, NOW)

    assert change is not None
    assert change.task.state is State.CANCELLING
    assert not change.task.tidy


def test_a_cancelled_job_ends_as_cancelled_only_if_that_was_asked_for() -> None:
    cancelled = Report(Verdict.FAILED, message="Operation canceled", cancelled=True)
    running = after(run_task(), going(1, 2))
    asked = transitions.cancel(running, NOW)
    assert asked is not None

    assert after(asked.task, cancelled).state is State.CANCELLED
    assert after(running, cancelled).state is State.FAILED


def test_a_cancellation_that_comes_too_late_leaves_the_success() -> None:
    asked = transitions.cancel(after(run_task(), going(1, 2)), NOW)
    assert asked is not None

    assert after(asked.task, Report(Verdict.SUCCEEDED)).state is State.SUCCEEDED


def test_cancelling_twice_is_harmless_and_cancelling_an_ended_task_is_refused() -> None:
    asked = transitions.cancel(after(run_task(), going(1, 2)), NOW)
    assert asked is not None

    assert transitions.cancel(asked.task, NOW) is None
    with pytest.raises(AlreadyFinished):
        transitions.cancel(after(run_task(), Report(Verdict.SUCCEEDED)), NOW)


def test_only_a_lost_task_can_be_resolved() -> None:
    lost = after(a_task(), going(1, 2), Report(Verdict.VANISHED, certain=True))

    assert transitions.resolve(lost, State.SUCCEEDED, "image compared by hand", NOW).task.state is State.SUCCEEDED
    with pytest.raises(NotLost):
        transitions.resolve(after(a_task(), Report(Verdict.SUCCEEDED)), State.FAILED, "", NOW)


def test_the_size_is_told_once_as_soon_as_it_is_known() -> None:
    first = transitions.apply(a_task(), going(1, 9, size=1 << 30), NOW)
    assert first is not None
    assert [event.type for event in first.events] == ["task.running", "task.size"]
    assert first.task.size_told
    assert first.task.task_seq == 3

    second = transitions.apply(first.task, going(2, 9, size=1 << 30), NOW + 10)
    assert second is not None
    assert second.events == ()


def test_a_size_first_seen_at_the_end_comes_with_the_end() -> None:
    change = transitions.apply(a_task(), Report(Verdict.SUCCEEDED, size=5 << 20), NOW)

    assert change is not None
    assert [event.type for event in change.events] == ["task.succeeded"]
    assert change.task.size == 5 << 20
    assert not change.task.size_told


def test_a_task_without_progress_is_flagged_and_recovers() -> None:
    task = after(a_task(), going(1, 9))
    stalled = transitions.apply(task, going(1, 9), NOW + 700)
    assert stalled is not None
    assert [event.type for event in stalled.events] == ["task.stalled"]
    assert transitions.apply(stalled.task, going(1, 9), NOW + 710) is None

    recovered = transitions.apply(stalled.task, going(2, 9), NOW + 720)
    assert recovered is not None
    assert [event.type for event in recovered.events] == ["task.recovered"]


def test_progress_callbacks_are_events_at_most_every_ten_seconds() -> None:
    task = after(a_task(callback=CallbackTarget(url="http://127.0.0.1/x", events=("progress",))), going(1, 99))
    first = transitions.apply(task, going(2, 99), NOW + 11)
    assert first is not None
    assert [event.type for event in first.events] == ["task.progress"]

    second = transitions.apply(first.task, going(3, 99), NOW + 12)
    assert second is not None
    assert second.events == ()


reports = st.one_of(
    st.just(Report(Verdict.UNKNOWN)),
    st.builds(going, st.integers(0, 100), st.integers(0, 100), size=st.sampled_from([None, 0, 7])),
    st.just(Report(Verdict.SUCCEEDED, size=9)),
    st.builds(Report, st.just(Verdict.FAILED), cancelled=st.booleans()),
    st.builds(Report, st.just(Verdict.VANISHED), certain=st.booleans()),
)


@given(st.lists(st.one_of(reports, st.sampled_from(["cancel", "launch", "expire"])), max_size=25), st.sampled_from(list(Mode)))
def test_i7_there_is_never_more_than_one_terminal_event_and_nothing_leaves_a_final_state(
    steps: list[Report | str], mode: Mode
) -> None:
    task = a_task(mode=mode, timeout=1e6)
    ends, now = 0, NOW
    for step in steps:
        now += 10
        if step == "launch":
            change = None if task.done or task.launched or mode is Mode.TRACK else transitions.launch(task, {}, now)
        elif step == "expire":
            change = transitions.expire(task, NOW + 2e6)
        elif step == "cancel":
            change = None if task.done else transitions.cancel(task, now, stop_tracking=True)
        else:
            assert isinstance(step, Report)
            change = transitions.apply(task, step, now)
        if change is None:
            continue
        assert not task.done
        assert change.before is task or change.before == task
        assert (change.task.state is not task.state) <= bool(change.events)
        assert [event.task_seq for event in change.events] == list(range(task.task_seq + 1, change.task.task_seq + 1))
        ends += sum(event.type in {f"task.{state.value}" for state in FINAL} for event in change.events)
        old, new = task.progress, change.task.progress
        if old is not None and old.percent is not None:
            assert new is not None
            assert new.percent is not None
            assert new.percent >= old.percent
        task = change.task
    assert ends == (1 if task.done else 0)
