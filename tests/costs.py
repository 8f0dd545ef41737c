"""What something costs, counted and not timed: the calls of Python and C functions that one thread makes meanwhile. The same on
every machine, under load too; more of them is more processor time.

A baseline is what was counted when the code was last looked at for its cost; it lies beside the test, in a JSON file of its
name. Beyond it by more than a tenth a change made the thing dearer: find out why. Well below it: renew it, so that what was
won is kept. Renew: `RENEW_COSTS=1 pytest FILE`.
"""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

MORE, LESS = 1.1, 0.8  # times the baseline
RENEW = "RENEW_COSTS"
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"  # each Python calls otherwise


class Calls:
    """How many there were, on the threads and in the parts of the program that `counted` was around."""

    def __init__(self) -> None:
        self.made = 0
        self.by_name: dict[str, int] | None = None  # set to {} to see what they were

    def __call__(self, frame: FrameType, event: str, what: Any) -> None:
        if event not in ("call", "c_call"):
            return
        self.made += 1
        if self.by_name is not None:
            name = frame.f_code.co_qualname if event == "call" else getattr(what, "__qualname__", repr(what))
            self.by_name[name] = self.by_name.get(name, 0) + 1


@contextmanager
def counted(calls: Calls) -> Iterator[Calls]:
    """Count what this thread calls inside; on the event loop's thread also what others do there at an `await`."""
    before = sys.getprofile()
    sys.setprofile(calls)
    try:
        yield calls
    finally:
        sys.setprofile(before)
        calls.made -= 1  # the call that ended the counting


def expect_cost(test_file: str, name: str, cost: float, unit: str = "calls") -> None:
    """Fails when `cost` is not what the baseline `name` beside the test says, within the tolerance."""
    path = Path(test_file).with_suffix(".json")
    known: dict[str, dict[str, float]] = json.loads(path.read_text()) if path.exists() else {}
    if os.environ.get(RENEW):
        known.setdefault(VERSION, {})[name] = round(cost, 1)
        path.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n")
        return
    if VERSION not in known:
        pytest.skip(f"no baseline for Python {VERSION} in {path.name}: {RENEW}=1 pytest {path.stem}.py records one")
    assert name in known[VERSION], f"no baseline {name!r} in {path.name}: {RENEW}=1 records one"
    baseline = known[VERSION][name]
    told = f"{name}: {cost:.1f} {unit}, the baseline is {baseline}; if that is right, renew it: {RENEW}=1 pytest {path.stem}.py"
    assert baseline * LESS <= cost <= baseline * MORE, told
