"""Handing out what is due, with real threads and a clock moved by hand."""

from collections.abc import Callable, Iterator

import pytest

from task_daemon.clock import FakeClock
from task_daemon.core.ports import Again, Beat, Handlers, Watched
from task_daemon.engine.beats import NEVER, POKE_GAP
from task_daemon.engine.local.ledger import Ledger
from task_daemon.engine.local.rounds import LOADING_GAP, Rounds

Eventually = Callable[[str, Callable[[], object]], None]
ZONES = ("a", "b", "c")


class Polled:
    """Rounds of three zones that are all due, and the zones that were polled."""

    def __init__(self, clock: FakeClock) -> None:
        self.zones: list[str] = []
        self.stirred: list[float] = []
        self.ledger = Ledger(clock, Watched(), lambda _tasks: None)
        for zone in ZONES:
            self.ledger.beats.configure(zone, 10.0, clock.monotonic())
            self.ledger.beats.add(zone, f"task of {zone}", None, clock.monotonic())
        handlers = Handlers(self._poll, None, lambda _tasks: None, lambda _tasks, _events: None, lambda _error: None)  # type: ignore[arg-type]  # nothing is delivered here
        self.pieces = self.asked = 0
        self.hurry = 0.0
        self.rounds = Rounds(self.ledger, clock, handlers, 4, lambda _zone: 60.0, self.stirred.append, self._give_way)

    def _poll(self, beat: Beat) -> Again:
        for _ in range(self.pieces):
            beat.give_way()
        self.zones.append(beat.zone)
        return Again()

    def _give_way(self) -> float:
        self.asked += 1
        return self.hurry


@pytest.fixture
def polled(clock: FakeClock) -> Iterator[Polled]:
    made = Polled(clock)
    yield made
    made.rounds.close()


def test_polls_start_apart_while_the_stored_tasks_are_being_loaded(
    polled: Polled, clock: FakeClock, eventually: Eventually
) -> None:
    for count in (1, 2):
        polled.rounds.dispatch(clock.monotonic(), loading=True)
        assert polled.rounds.next_due(loading=True) == pytest.approx(clock.monotonic() + LOADING_GAP)
        polled.rounds.dispatch(clock.monotonic(), loading=True)
        eventually("one more was polled", lambda count=count: len(polled.zones) == count)  # type: ignore[misc]
        eventually("it has ended", lambda: not polled.rounds.workers.unfinished())
        assert len(polled.zones) == count
        clock.advance(LOADING_GAP)

    assert len(set(polled.zones)) == 2


def test_end_of_a_poll_tells_when_the_next_is_due_and_its_beginning_disturbs_nobody(
    polled: Polled, clock: FakeClock, eventually: Eventually
) -> None:
    polled.rounds.dispatch(clock.monotonic(), loading=False)
    eventually("each has told twice", lambda: len(polled.stirred) == 2 * len(ZONES))

    due = polled.rounds.next_due(loading=False)
    assert clock.monotonic() < due <= clock.monotonic() + 10.0
    assert polled.stirred[-1] == due
    assert polled.stirred.count(NEVER) == len(ZONES)


def test_zones_without_tasks_wait_for_no_other_while_the_stored_tasks_are_being_loaded(
    polled: Polled, clock: FakeClock, eventually: Eventually
) -> None:
    for zone in ZONES:
        polled.ledger.beats.drop(zone, f"task of {zone}", None)
    polled.rounds.dispatch(clock.monotonic(), loading=True)

    eventually("all were polled", lambda: sorted(polled.zones) == list(ZONES))


def test_first_zone_that_gets_its_stored_tasks_waits_for_none_that_were_polled_without(
    polled: Polled, clock: FakeClock, eventually: Eventually
) -> None:
    for zone in ZONES:
        polled.ledger.beats.drop(zone, f"task of {zone}", None)
    polled.rounds.dispatch(clock.monotonic(), loading=True)
    eventually("all have ended", lambda: not polled.rounds.workers.unfinished())
    with polled.ledger.lock:
        polled.ledger.beats.add("b", "stored", None, clock.monotonic())

    assert polled.rounds.next_due(loading=True) == clock.monotonic() + POKE_GAP


def test_everything_due_is_polled_at_once_when_the_stored_tasks_are_loaded(
    polled: Polled, clock: FakeClock, eventually: Eventually
) -> None:
    polled.rounds.dispatch(clock.monotonic(), loading=True)
    polled.rounds.dispatch(clock.monotonic(), loading=False)

    eventually("all were polled", lambda: sorted(polled.zones) == list(ZONES))


@pytest.mark.parametrize(("hurry", "asked"), [(0.0, 50), (0.5, 4)])
def test_a_poll_gives_way_to_those_in_a_hurry_and_not_for_ever(
    hurry: float, asked: int, polled: Polled, clock: FakeClock, eventually: Eventually
) -> None:
    polled.pieces, polled.hurry = 50, hurry
    polled.rounds.dispatch(clock.monotonic(), loading=False)

    eventually("all were polled", lambda: sorted(polled.zones) == list(ZONES))
    assert polled.asked == asked * len(ZONES)


def test_the_time_in_which_a_poll_gave_way_is_none_that_it_took_of_this_machine(
    polled: Polled, clock: FakeClock, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[tuple[float, ...]] = []
    monkeypatch.setattr(polled.ledger.beats, "finish", lambda *arguments: found.append(arguments[-2:]))
    polled.pieces, polled.hurry = 3, 0.25
    polled.rounds.dispatch(clock.monotonic(), loading=False)

    eventually("each has ended", lambda: len(found) == len(ZONES))
    assert found == [(0.0, 0.75)] * len(ZONES), "nor any that the backend took"
