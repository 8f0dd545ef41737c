"""Deadlines come up when they have passed, not before, and each once; however they lie, and however the wall clock is set."""

from hypothesis import given
from hypothesis import strategies as st

from task_daemon.engine.deadlines import EXPIRE_AGAIN, Deadlines

at = st.integers(0, 400).map(lambda tenths: tenths * 0.9)


def all_due(deadlines: Deadlines, now: float, limit: int = 3) -> list[str]:
    """As an engine asks: now and then (the wall clock may be set), and again as long as there is something to do now."""
    found = deadlines.due(now, limit)
    while (when := deadlines.next()) is not None and when <= now:
        found += deadlines.due(now, limit)
    return found


@given(st.dictionaries(st.text(max_size=3), at, max_size=30), st.sets(st.text(max_size=3)), st.lists(at, max_size=8))
def test_each_comes_up_once_as_soon_as_it_has_passed(times: dict[str, float], ended: set[str], looks: list[float]) -> None:
    left = dict(times)
    deadlines = Deadlines(left.get)
    for uid, when in times.items():
        deadlines.add(uid, when)
    for uid in ended & set(left):
        deadlines.drop(uid, left.pop(uid))
    for now in sorted(looks):
        found = all_due(deadlines, now)
        assert sorted(found) == sorted(uid for uid, when in left.items() if when <= now)
        for uid in found:  # they end
            deadlines.drop(uid, left.pop(uid))

    assert sorted(all_due(deadlines, 1000.0)) == sorted(left)


def test_wait_ends_when_there_is_something_to_do() -> None:
    left = {"a": 130.0, "b": 3600.0}
    deadlines = Deadlines(left.get)
    for uid, when in left.items():
        deadlines.add(uid, when)
    assert deadlines.next() == 120.0, "its minute begins"
    assert deadlines.due(120.0, 10) == []
    assert deadlines.next() == 130.0
    assert deadlines.due(129.9, 10) == []
    assert deadlines.due(130.0, 10) == ["a"]
    assert deadlines.next() == 130.0 + EXPIRE_AGAIN, "if nothing came of it"
    deadlines.drop("a", left.pop("a"))
    assert deadlines.due(140.0, 10) == []
    assert deadlines.next() == 3600.0
    deadlines.drop("b", left.pop("b"))
    assert deadlines.next() is None


def test_deadline_comes_again_when_nothing_came_of_it_or_the_wall_clock_is_set_back() -> None:
    deadlines = Deadlines({"a": 130.0}.get)
    deadlines.add("a", 130.0)
    assert all_due(deadlines, 1000.0) == ["a"], "the wall clock was wrong"
    assert all_due(deadlines, 100.0) == []
    assert all_due(deadlines, 129.0) == []
    assert all_due(deadlines, 131.0) == ["a"]
    assert all_due(deadlines, 131.0 + EXPIRE_AGAIN) == ["a"]


def test_crowd_of_one_minute_is_looked_at_in_pieces() -> None:
    times = {str(number): 90.0 for number in range(1000)}
    asked: list[str] = []

    def of(uid: str) -> float:
        asked.append(uid)
        return times[uid]

    deadlines = Deadlines(of)
    for uid, when in times.items():
        deadlines.add(uid, when)
    assert deadlines.due(60.0, 10) == []
    assert len(asked) == 10
    assert deadlines.next() == 60.0, "more of it is to be looked at"
    assert sorted(all_due(deadlines, 90.0, limit=10)) == sorted(times)
