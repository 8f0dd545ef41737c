"""A daemon whose zones answer for one task at a time, each after a while, and which notes when it looked at what.

    python -m benchmarks.harness.one_by_one FILE-OF-LOOKS SECONDS [arguments of task-daemon]

Zones are of the backend `one_by_one`. The file holds records of `LOOK`: the number at the end of the task's id and the
monotonic time.
"""

import os
import struct
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from task_daemon import main as daemon
from task_daemon.backends import registry, simulated
from task_daemon.core.model import Report, Task, Verdict
from task_daemon.core.ports import Action, Family, ZoneContext

LOOK = struct.Struct("<Id")
GOING_ON = Report(Verdict.GOING_ON)


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    """A zone has none."""


class OneByOne:
    """Every task goes on for ever."""

    def __init__(self, file: int, lasts: float, context: ZoneContext) -> None:
        self._file = file
        self._lasts = lasts
        inner = simulated.SimulatedBackend(simulated.SimulatedSettings(), context)
        self.actions: Mapping[str, Action] = inner.actions

    def admit(self, task: Task) -> dict[str, Any] | None:  # noqa: ARG002 - anything may be watched here
        return None

    def poll(self, tasks: Sequence[Task]) -> Mapping[str, Report]:
        looks = []
        for task in tasks:
            looks.append(LOOK.pack(int(task.id.rpartition("-")[2]), time.monotonic()))
            if self._lasts:
                time.sleep(self._lasts)
        os.write(self._file, b"".join(looks))
        return {task.uid: GOING_ON for task in tasks}

    def events(self, wake: Callable[[], None]) -> None:
        """Announces nothing."""

    def close(self) -> None:
        """Holds nothing open."""


def looks(path: Path) -> list[tuple[int, float]]:
    """What was noted, in the order of time for each task."""
    return list(LOOK.iter_unpack(path.read_bytes())) if path.exists() else []


def main() -> int:
    path, lasts, *arguments = sys.argv[1:]
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    family = Family(name="one_by_one", settings=Settings, make=lambda _, context: OneByOne(file, float(lasts), context))
    registry.BUILT_IN = (*registry.BUILT_IN, family)
    return daemon.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
