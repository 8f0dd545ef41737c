"""The plots of `docs/performance.md`; needs matplotlib."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot

from benchmarks.harness.row import number, ratio_of
from benchmarks.page import OURS, Result, expected_plots, judged, less_is_better


def draw(rows: Sequence[Result], peers: Sequence[Result], folder: Path) -> list[Path]:
    """All plots of these results, into a folder from which those of other results are removed."""
    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "performance", "font.size": 9, "svg.fonttype": "path", "figure.facecolor": "white"})
    drawn = expected_plots(rows, peers)
    for name, mark in drawn.items():
        drawing = draw_targets(judged(rows)) if name == "performance-targets.svg" else draw_peers(name, peers)
        # nothing of today's date, so that the same results make the same file
        drawing.savefig(folder / name, metadata={"Date": None, "Description": f"drawn from {mark}"}, bbox_inches="tight")
    for old in set(folder.glob("performance-*.svg")) - {folder / name for name in drawn}:
        old.unlink()
    return [folder / name for name in drawn]


def draw_targets(figures: Sequence[tuple[str, Result]]) -> Any:
    drawing, axes = pyplot.subplots(figsize=(9, 0.8 + 0.24 * len(figures)))
    colours = {"target": "#2a7f4f", "gate": "#d9a21b", "missed": "#b5382e"}
    for place, (_, each) in enumerate(figures):
        ratio = ratio_of(each) or 0.0
        axes.barh(place, ratio, color=colours[each["verdict"]], height=0.7)
        axes.text(ratio * 1.03, place, f"{number(each['reached'])} {each['unit']}", va="center", fontsize=7.5)
    axes.set_yticks(range(len(figures)), [label if len(label) < 70 else f"{label[:67]}..." for label, _ in figures], fontsize=7.5)
    axes.axvline(1.0, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlim(right=axes.get_xlim()[1] * 2)
    axes.invert_yaxis()
    axes.set_xlabel(
        "how much better than its target (line: the target; log scale). Green: target reached, yellow: gate, red: missed"
    )
    axes.spines[["top", "right"]].set_visible(False)
    return drawing


def draw_peers(name: str, peers: Sequence[Result]) -> Any:
    found = next(result for result in peers if name == f"performance-{result['work']}.svg")
    figures = [
        (key, what) for key, what in found["figures"].items() if sum(key in each["median"] for each in found["systems"]) > 1
    ]
    columns = min(3, len(figures))
    lines = -(-len(figures) // columns)
    drawing, grid = pyplot.subplots(lines, columns, figsize=(3.4 * columns, 0.6 + 1.5 * lines), squeeze=False)
    for axes in grid.flat[len(figures) :]:
        axes.set_visible(False)
    for axes, (key, what) in zip(grid.flat, figures, strict=False):
        names = [each["name"] for each in found["systems"] if key in each["median"]]
        values = [each["median"][key] for each in found["systems"] if key in each["median"]]
        axes.barh(names, values, color=["#2a5f9e" if each == OURS else "#b8c4d0" for each in names], height=0.7)
        for place, value in enumerate(values):
            axes.text(value, place, f" {number(value)}", va="center", fontsize=8)
        axes.set_title(f"{what} ({'less' if less_is_better(what) else 'more'} is better)", fontsize=8.5)
        axes.invert_yaxis()
        axes.set_xticks([])
        axes.margins(x=0.25)
        axes.spines[["top", "right", "bottom"]].set_visible(False)
    drawing.tight_layout()
    return drawing
