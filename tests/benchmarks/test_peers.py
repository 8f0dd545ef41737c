"""How late looks are, in the comparison with peers."""

from pathlib import Path

import pytest

from benchmarks.peers.__main__ import INTERVAL, lateness
from benchmarks.peers.operation import LOOK, looks

AT = 1000.0


def test_looks_on_the_grid_are_not_late() -> None:
    due = [AT + 1, AT + 9]
    made = [(n, first + turn * INTERVAL) for n, first in enumerate(due) for turn in range(3)]

    found = lateness(made, due, AT, 3 * INTERVAL, cpu=0.6)

    assert found == pytest.approx({"done": 100.0, "p50": 0.0, "p99": 0.0, "cpu": 100.0})


def test_who_looks_an_interval_after_the_last_look_falls_behind() -> None:
    made = [(0, AT + turn * (INTERVAL + 1)) for turn in range(4)]

    found = lateness(made, [AT], AT, 4 * INTERVAL, cpu=0.0)

    assert found["p50"] == pytest.approx(2000)
    assert found["done"] == 100.0
    assert lateness(made[:3], [AT], AT, 4 * INTERVAL, cpu=0.0)["done"] == 75.0


def test_looks_outside_of_the_measured_time_do_not_count() -> None:
    made = [(0, AT - 9.0), (0, AT + 1.0), (0, AT + 4 * INTERVAL)]

    assert lateness(made, [AT + 1.0], AT, INTERVAL, cpu=0.0)["done"] == 100.0
    assert lateness(made[:1], [AT + 1.0], AT, INTERVAL, cpu=0.0)["done"] == 0.0


def test_looks_are_read_as_they_were_recorded(tmp_path: Path) -> None:

    path = tmp_path / "looks"
    assert looks(path) == []
    path.write_bytes(LOOK.pack(7, 1.5) + LOOK.pack(8, 2.5))
    assert looks(path) == [(7, 1.5), (8, 2.5)]
