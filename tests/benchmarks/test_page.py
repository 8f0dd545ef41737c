"""docs/performance.md is what its generator makes of the results, and every row of the table can be measured."""

import re
from pathlib import Path

import pytest

from benchmarks import page
from benchmarks.__main__ import names

ROOT = Path(__file__).parent.parent.parent
BY = "run `make performance-page`"


def test_the_page_is_made_of_the_results() -> None:
    assert page.PAGE.read_text() == page.text(*page.published()), BY


def test_the_plots_are_drawn_from_the_results() -> None:
    wanted = page.expected_plots(*page.published())
    drawn = {path.name: re.findall(r"drawn from (\w+)", path.read_text()) for path in page.DOCS.glob("performance-*.svg")}

    assert drawn == {name: [mark] for name, mark in wanted.items()}, BY


def test_every_row_has_its_file_or_is_said_to_be_missing() -> None:
    there = {f"P{int(name[1:3])}" for name in names()}
    said = re.search(r"(?m)^Not measured: (.*)\.$", page.PAGE.read_text())
    absent = set(said[1].split(", ")) if said else set()

    assert set(page.ROWS) <= there | absent


@pytest.mark.parametrize("cost", page.COSTS)
def test_what_the_cost_model_needs_is_a_figure_of_its_row(cost: str) -> None:
    code, figure = page.COSTS[cost]
    (name,) = [name for name in names() if name.startswith(f"p{int(code[1:]):02}_")]

    assert figure in [each.name for each in page.row_of(name).figures]


def test_what_is_published_are_full_runs() -> None:
    rows, peers = page.published()

    assert [result for result in [*rows, *peers] if result["quick"]] == []


def test_a_better_peer_is_named_with_what_it_is_better_in() -> None:
    found = {
        "work": "w1",
        "figures": {"one": "1 client, /s", "one_p99": "1 client, p99 ms"},
        "systems": [
            {"name": page.OURS, "median": {"one": 1000.0, "one_p99": 1.0}},
            {"name": "Huey", "median": {"one": 3000.0, "one_p99": 2.0}},
            {"name": "RQ", "median": {"one": 900.0, "one_p99": 1.5}},
        ],
    }

    said = page.better_peers(found)

    assert said.startswith("- **Huey is better in** 1 client, /s (3,000 against 1,000): it inserts")
    assert "p99" not in said
    assert "RQ" not in said
