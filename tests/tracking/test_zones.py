"""How a zone is shown: what each call into it, and each that does not come back, makes of its state."""

import pytest

from task_daemon.clock import FakeClock
from task_daemon.core.ports import Zone
from task_daemon.tracking.zones import ERRORS_KEPT, HANG_MARGIN, ZoneBook
from tests.tracking.outside import Outside


@pytest.fixture
def book(clock: FakeClock) -> ZoneBook:
    return ZoneBook([Zone("z1", "test", Outside(), poll_timeout=5.0), Zone("z2", "test", Outside())], clock)


def state(book: ZoneBook, paused: bool = False) -> tuple[str, str]:
    view = book.view("z1", paused, 0, None)
    return view["state"], view["breaker"]


def test_a_zone_is_idle_until_it_is_asked_for_the_first_time(book: ZoneBook) -> None:
    assert state(book) == ("idle", "closed")
    assert not book.unreachable("z1")


def test_a_zone_is_ok_when_it_has_answered(book: ZoneBook, clock: FakeClock) -> None:
    book.asked("z1")
    clock.advance(0.25)
    book.answered("z1")

    view = book.view("z1", False, 3, clock.now() + 10)
    assert (view["state"], view["latency_seconds"], view["live_tasks"], view["failures"]) == ("ok", 0.25, 3, 0)
    assert (view["last_poll_at"], view["last_answer_at"]) == ("2027-01-15T08:00:00.000Z", "2027-01-15T08:00:00.250Z")
    assert view["next_poll_at"] == "2027-01-15T08:00:10.250Z"
    assert (view["backend"], view["actions"], view["labels"]) == ("test", ["backup", "fixed"], {})


def test_a_zone_is_unreachable_from_its_first_failure_and_its_breaker_opens_with_the_second(book: ZoneBook) -> None:
    book.asked("z1")
    assert book.failed("z1", "refused") == 1
    assert state(book) == ("unreachable", "closed")
    assert book.unreachable("z1")
    assert book.failed("z1", "refused again") == 2

    assert state(book) == ("unreachable", "open")
    assert book.view("z1", False, 0, None)["last_error"] == "refused again"


def test_a_zone_recovers_with_a_whole_poll_and_not_with_a_single_answer(book: ZoneBook) -> None:
    book.failed("z1", "refused")
    book.asked("z1")
    book.answered("z1")
    assert state(book) == ("unreachable", "closed")
    assert book.polled("z1") == 1

    view = book.view("z1", False, 0, None)
    assert (view["state"], view["last_error"]) == ("ok", None)
    assert [entry["error"] for entry in view["errors"]] == ["refused"]
    assert book.polled("z1") == 0


def test_a_zone_is_hung_when_a_call_is_out_beyond_its_time_out(book: ZoneBook, clock: FakeClock) -> None:
    book.asked("z1")
    clock.advance(5.0 + HANG_MARGIN)
    assert (state(book)[0], book.hung_for("z1"), book.unreachable("z1")) == ("idle", None, False)
    clock.advance(1.0)

    view = book.view("z1", False, 0, None)
    assert (view["state"], view["breaker"], book.unreachable("z1")) == ("hung", "open", True)
    assert view["last_error"] == "no answer for 7 s to a call that should take at most 5 s"
    assert not book.unreachable("z2")


def test_a_hang_is_over_when_the_call_comes_back(book: ZoneBook, clock: FakeClock) -> None:
    book.asked("z1")
    clock.advance(60.0)
    book.answered("z1")

    assert state(book) == ("ok", "closed")
    assert book.view("z1", False, 0, None)["latency_seconds"] == 60.0


@pytest.mark.parametrize("outcome", ["failed", "raised"])
def test_a_call_that_came_back_with_an_error_does_not_hang(book: ZoneBook, clock: FakeClock, outcome: str) -> None:
    book.asked("z1")
    getattr(book, outcome)("z1", "an error")
    clock.advance(60.0)

    assert book.hung_for("z1") is None


def test_an_error_over_one_task_is_shown_and_says_nothing_about_the_zone(book: ZoneBook) -> None:
    book.answered("z1")
    book.raised("z1", "cannot poll task 1: KeyError()")

    view = book.view("z1", False, 0, None)
    assert (view["state"], view["last_error"]) == ("ok", None)
    assert view["errors"] == [{"at": "2027-01-15T08:00:00.000Z", "error": "cannot poll task 1: KeyError()"}]


def test_a_paused_zone_is_paused_whatever_else_it_is(book: ZoneBook, clock: FakeClock) -> None:
    book.failed("z1", "refused")
    book.asked("z1")
    clock.advance(60.0)

    assert state(book, paused=True)[0] == "paused"


def test_only_the_latest_errors_are_kept(book: ZoneBook) -> None:
    for number in range(ERRORS_KEPT + 2):
        book.failed("z1", f"error {number}")

    errors = [entry["error"] for entry in book.view("z1", False, 0, None)["errors"]]
    assert errors == [f"error {number}" for number in range(2, ERRORS_KEPT + 2)]


def test_a_zone_that_is_not_configured_counts_as_unreachable(book: ZoneBook) -> None:
    assert book.unreachable("nowhere")
    assert list(book) == ["z1", "z2"]
