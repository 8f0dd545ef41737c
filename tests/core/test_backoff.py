"""How long to wait before the next try."""

from task_daemon.core.backoff import CALLBACK_SCHEDULE, before_attempt, before_poll


def test_the_first_attempt_goes_out_at_once_and_the_last_after_a_day() -> None:
    assert before_attempt(0, 0.5) == 0
    assert before_attempt(12, 0.5) == 86_400
    assert before_attempt(13, 0.5) is None


def test_jitter_is_twenty_percent_either_way() -> None:
    assert before_attempt(5, 0.0) == 60 * 0.8
    assert before_attempt(5, 1.0) == 60 * 1.2


def test_the_schedule_covers_a_receiver_that_is_down_for_a_day() -> None:
    assert sum(CALLBACK_SCHEDULE) > 86_400


def test_a_zone_in_trouble_is_asked_less_often_up_to_a_minute() -> None:
    assert [before_poll(n, 10.0) for n in (1, 2, 3, 4, 50)] == [10, 20, 40, 60, 60]


def test_a_slow_interval_is_never_shortened_by_the_cap() -> None:
    assert before_poll(5, 300.0) == 300
