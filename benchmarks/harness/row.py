"""One row of the table: what it must reach, how it is run, and what it found.

A row's file names its figures and has one function that measures them, round by round:

    ROW = Row("P2", "registrations over one connection in lockstep", [
        Figure("rate", "durable registrations", "/s", at_least(3500), gate=2500),
        Figure("p99", "the slowest of 100", "ms", at_most(1), gate=2),
    ])

    def measure(bench: Bench) -> None:
        with Daemon(bench.home("daemon")) as daemon:
            for _ in bench.rounds():
                found = load(daemon.socket, seconds=bench.seconds(2))
                bench.note(rate=found.rate, p99=found.p99_ms)

    if __name__ == "__main__":
        main(ROW, measure)

What is compared (the daemon, the baseline) is measured within the same round, so that all of it sees the same machine.
"""

import argparse
import json
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.harness.machine import Others, facts, loop_seconds

RESULTS = Path(__file__).parent.parent / "results"
ROUNDS = 5
QUIET = 0.1  # cores used by others, up to which a run counts as quiet
VERDICTS = ("target", "gate", "missed", "not measured")  # from the best


@dataclass(frozen=True)
class Bound:
    value: float
    more: bool  # more is better


def at_least(value: float) -> Bound:
    return Bound(value, more=True)


def at_most(value: float) -> Bound:
    return Bound(value, more=False)


@dataclass(frozen=True)
class Figure:
    """One number of a row: a median over the rounds, or the worst of them where `worst` is set. Without `target` it is told
    beside the others and judged by nobody (a baseline). `gate` is what must be reached if the target is not."""

    name: str
    what: str
    unit: str
    target: Bound | None = None
    gate: float | None = None
    worst: bool = False

    def verdict(self, reached: float | None) -> str:
        """One of VERDICTS; "" for a figure without a target."""
        if self.target is None:
            return ""
        if reached is None:
            return "not measured"
        for word, bound in (("target", self.target.value), ("gate", self.gate)):
            if bound is not None and (reached >= bound if self.target.more else reached <= bound):
                return word
        return "missed"

    def reached(self, values: Sequence[float]) -> float | None:
        if not values:
            return None
        if self.worst and self.target is not None:
            return min(values) if self.target.more else max(values)
        return statistics.median(values)


@dataclass(frozen=True)
class Row:
    code: str  # P1 … P15
    what: str
    figures: Sequence[Figure]
    rounds: int = ROUNDS  # rows whose rounds are long and steady may take fewer
    note: str = ""  # what a reader must know to understand the figures

    def __post_init__(self) -> None:
        names = [figure.name for figure in self.figures]
        assert len(set(names)) == len(names), f"{self.code} has two figures of one name"


@dataclass
class Bench:
    """What a row is given to measure with."""

    row: Row
    directory: Path
    planned: int
    quick: bool = False
    values: dict[str, list[float]] = field(default_factory=dict)
    loops: list[float] = field(default_factory=list)  # `loop_seconds` before each round

    def rounds(self) -> Iterator[int]:
        for turn in range(self.planned):
            print(f"{self.row.code} round {turn + 1} of {self.planned}", file=sys.stderr, flush=True)
            self.loops.append(loop_seconds())
            yield turn

    def seconds(self, full: float) -> float:
        """How long to measure: a quarter of it in a quick run."""
        return full / 4 if self.quick else full

    def count(self, full: int) -> int:
        """How many of something to measure with: a tenth in a quick run, whose figures are for trying the benchmark out."""
        return max(1, full // 10) if self.quick else full

    def home(self, name: str) -> Path:
        """A directory on the disk that is measured, with a short path; made if it is not there."""
        home = self.directory / name
        home.mkdir(exist_ok=True)
        return home

    def note(self, **found: float) -> None:
        """Values of one round, by the names of the row's figures."""
        for name, value in found.items():
            assert any(figure.name == name for figure in self.row.figures), f"{self.row.code} has no figure {name}"
            self.values.setdefault(name, []).append(value)


Measure = Callable[[Bench], None]


def main(row: Row, measure: Measure) -> None:
    """The command line of a row."""
    options = arguments(row).parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(f"{row.code} was ended"))  # leaves the `with` blocks, as Ctrl-C does
    found = run(row, measure, rounds=options.rounds, quick=options.quick, directory=options.directory)
    show(found)
    if not options.quick:
        file = sys.modules["__main__"].__file__
        assert file is not None
        print(f"written to {write(found, Path(file).stem)}")


def arguments(row: Row) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=f"{row.code}: {row.what}")
    parser.add_argument("--rounds", type=int, default=None, help=f"rounds to take the median of ({row.rounds})")
    parser.add_argument("--quick", action="store_true", help="small and short, to try the benchmark out; writes no result")
    parser.add_argument("--directory", type=Path, default=None, help="where workspaces go: its disk is what is measured")
    return parser


def run(
    row: Row, measure: Measure, *, rounds: int | None = None, quick: bool = False, directory: Path | None = None
) -> dict[str, Any]:
    """The result of a row, as it is written to `results/`."""
    with tempfile.TemporaryDirectory(prefix="tdb-", dir=directory) as scratch:
        bench = Bench(row, Path(scratch), rounds or (1 if quick else row.rounds), quick)
        machine, others, began = facts(bench.directory), Others(), time.monotonic()
        measure(bench)
        cores = others.cores()
    machine["loop_ms"] = [round(seconds * 1e3, 2) for seconds in bench.loops]
    figures = [_told(figure, bench.values.get(figure.name, [])) for figure in row.figures]
    return {
        "row": row.code,
        "what": row.what,
        "note": row.note,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine,
        "others_cores": round(cores, 2),
        "quiet": cores <= QUIET,
        "rounds": bench.planned,
        "quick": quick,
        "seconds": round(time.monotonic() - began, 1),
        "figures": figures,
        "verdict": worst(figure["verdict"] for figure in figures),
    }


def worst(verdicts: Iterator[str]) -> str:
    return max((verdict for verdict in verdicts if verdict), key=VERDICTS.index, default="")


def write(found: dict[str, Any], name: str) -> Path:
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    return path


def _told(figure: Figure, values: list[float]) -> dict[str, Any]:
    reached = figure.reached(values)
    bound = figure.target
    return {
        "name": figure.name,
        "what": figure.what,
        "unit": figure.unit,
        "better": None if bound is None else "more" if bound.more else "less",
        "target": None if bound is None else bound.value,
        "gate": figure.gate,
        "reached": _short(reached),
        "worst_of_rounds": figure.worst,
        "values": [_short(value) for value in values],
        "verdict": figure.verdict(reached),
    }


def _short(value: float | None) -> float | None:
    """Four digits say what there is to say."""
    return None if value is None else float(f"{value:.4g}")


# --------------------------------------------------------------------------- showing


def show(found: dict[str, Any]) -> None:
    machine = found["machine"]
    print(f"\n{found['row']}: {found['what']}{' (quick: not to be quoted)' if found['quick'] else ''}")
    for line in table([found]):
        print(line)
    print(
        f"{machine['cores']} cores, {machine['cpu']}, Linux {machine['kernel']}, Python {machine['python']}, "
        f"SQLite {machine['sqlite']}, flush {machine['flush_us']:.0f} us, "
        f"a fixed loop {min(machine['loop_ms'], default=0)} to {max(machine['loop_ms'], default=0)} ms, "
        f"others used {found['others_cores']} cores, "
        f"{found['rounds']} rounds in {found['seconds']:.0f} s"
    )


def table(results: Sequence[dict[str, Any]]) -> list[str]:
    """Row, figure, target, gate, reached, its ratio to the target (1 and more: reached) and the verdict, in columns."""
    lines = [("", "", "target", "gate", "reached", "ratio", "")]
    for found in results:
        for figure in found["figures"]:
            ratio = ratio_of(figure)
            shown = "" if ratio is None else f"{ratio:.2f}"
            bounds = (bound(figure, "target"), bound(figure, "gate"), number(figure["reached"]))
            lines.append((found["row"], f"{figure['what']}, {figure['unit']}", *bounds, shown, figure["verdict"]))
    widths = [max(len(line[place]) for line in lines) for place in range(7)]
    rights = (2, 3, 4, 5)
    return [
        "  ".join(f"{cell:>{width}}" if place in rights else f"{cell:<{width}}" for place, (cell, width) in cells).rstrip()
        for cells in (enumerate(zip(line, widths, strict=True)) for line in lines)
    ]


def ratio_of(figure: dict[str, Any]) -> float | None:
    """How much better than its target a figure is: 2 is twice as good, below 1 it is missed."""
    target, reached = figure["target"], figure["reached"]
    if target is None or reached is None or not reached or not target:
        return None
    return float(reached / target if figure["better"] == "more" else target / reached)


def bound(figure: dict[str, Any], name: str) -> str:
    value = figure[name]
    return "" if value is None else f"{'≥' if figure['better'] == 'more' else '≤'} {number(value)}"


def number(value: float | None) -> str:
    """As people write it: at most three digits that matter, thousands set apart."""
    if value is None:
        return "-"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
