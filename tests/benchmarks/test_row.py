"""How a row judges what it found."""

import pytest

from benchmarks.harness.row import Bench, Bound, Figure, Row, at_least, at_most, number, ratio_of, run


@pytest.mark.parametrize(
    ("target", "gate", "reached", "verdict"),
    [
        (at_least(6500), 5000, 6500, "target"),
        (at_least(6500), 5000, 5000, "gate"),
        (at_least(6500), 5000, 4999, "missed"),
        (at_least(6500), None, 6499, "missed"),
        (at_most(5), 8, 5, "target"),
        (at_most(5), 8, 8, "gate"),
        (at_most(5), 8, 8.1, "missed"),
        (at_most(5), 8, None, "not measured"),
        (None, None, 1, ""),
    ],
)
def test_a_figure_is_judged_by_its_target_and_its_gate(
    target: Bound | None, gate: float | None, reached: float | None, verdict: str
) -> None:
    assert Figure("rate", "what", "/s", target, gate).verdict(reached) == verdict


def test_a_row_tells_medians_worsts_and_its_worst_verdict() -> None:
    figures = [
        Figure("rate", "rate", "/s", at_least(10)),
        Figure("max", "slowest", "ms", at_most(5), gate=9, worst=True),
        Figure("bare", "to compare with", "/s"),
    ]

    def measure(bench: Bench) -> None:
        for turn in bench.rounds():
            bench.note(rate=[30, 10, 20][turn], max=[1, 7, 2][turn], bare=3)

    found = run(Row("P0", "a row", figures), measure, rounds=3)

    assert [(each["reached"], each["verdict"]) for each in found["figures"]] == [(20, "target"), (7, "gate"), (3, "")]
    assert [ratio_of(each) for each in found["figures"]] == [2.0, 5 / 7, None]
    assert found["verdict"] == "gate"
    assert found["machine"]["flush_us"] > 0
    assert [loop > 0 for loop in found["machine"]["loop_ms"]] == [True] * 3


def test_a_row_refuses_a_figure_that_it_has_not() -> None:
    with pytest.raises(AssertionError, match="P0 has no figure speed"):
        run(Row("P0", "a row", [Figure("rate", "rate", "/s")]), lambda bench: bench.note(speed=1))


@pytest.mark.parametrize(("value", "text"), [(12345.6, "12,346"), (99.94, "99.9"), (0.01234, "0.0123"), (None, "-")])
def test_numbers_are_written_as_people_write_them(value: float | None, text: str) -> None:
    assert number(value) == text
