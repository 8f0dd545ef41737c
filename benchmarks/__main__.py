"""All rows, one after the other, and their table.

    python -m benchmarks [p01 p07 ...] [--rounds N] [--quick] [--directory DIRECTORY]

A row that fails or takes too long is said so and does not keep the others from running.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.harness.row import RESULTS, table

HERE = Path(__file__).parent
LONGEST = 300.0  # seconds one row may take


def names() -> list[str]:
    """The rows that there are, by the names of their files."""
    return sorted(path.stem for path in HERE.glob("p[0-9][0-9]_*.py"))


def results() -> list[dict[str, Any]]:
    """What the rows that there are found when they were run last."""
    paths = (RESULTS / f"{name}.json" for name in names())
    return [json.loads(path.read_text()) for path in paths if path.exists()]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure the rows and print their table.")
    parser.add_argument("rows", nargs="*", help="names of rows, or how they begin (p01); none: all")
    parser.add_argument("--rounds", help="rounds of each, instead of its own number")
    parser.add_argument("--quick", action="store_true", help="small and short, to try the benchmarks out; writes no results")
    parser.add_argument("--directory", help="where workspaces go: its disk is what is measured")
    options = parser.parse_args()
    wanted = [name for name in names() if not options.rows or name.startswith(tuple(options.rows))]
    if not wanted:
        parser.error(f"cannot run {' '.join(options.rows)}: no such row; there are {', '.join(names())}")
    passed = [f"--rounds={options.rounds}"] if options.rounds else []
    passed += ["--quick"] if options.quick else []
    passed += [f"--directory={options.directory}"] if options.directory else []
    began = time.monotonic()
    failed = [name for name in wanted if not one(name, passed)]
    if not options.quick:
        print()
        for line in table(results()):
            print(line)
    print(f"\ntook {time.monotonic() - began:.0f} s")
    if failed:
        raise SystemExit(f"cannot tell the figures of {', '.join(failed)}: see above")


def one(name: str, passed: list[str]) -> bool:
    """Whether it could be measured."""
    process = subprocess.Popen([sys.executable, "-m", f"benchmarks.{name}", *passed], cwd=HERE.parent)
    try:
        return process.wait(LONGEST) == 0
    except subprocess.TimeoutExpired:
        process.terminate()  # its `with` blocks end what it started
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
        print(f"{name} was ended after {LONGEST:g} s", file=sys.stderr)
        return False
    except KeyboardInterrupt:
        process.wait(30)
        raise


if __name__ == "__main__":
    main()
