"""What the figures were measured on, and what else the machine did meanwhile."""

import os
import platform
import sqlite3
import statistics
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.harness.process import TICK, cpu_of_family

SYNCS = 200
STEPS = 100_000


def facts(directory: Path) -> dict[str, Any]:
    """`directory` is on the disk that is measured."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "tornado": version("tornado"),
        "filesystem": _filesystem(directory),
        "flush_us": round(flush_seconds(directory / "flush") * 1e6, 1),
    }


def flush_seconds(path: Path) -> float:
    """Median time of 4 KiB appended and flushed."""
    taken = []
    with path.open("wb", buffering=0) as file:
        for _ in range(SYNCS):
            began = time.perf_counter()
            file.write(b"x" * 4096)
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - began)
    path.unlink()
    return statistics.median(taken)


def loop_seconds() -> float:
    """Median time of a fixed loop in Python: how fast the processor is just now. One that is shared with other machines can
    change by the half within a minute, and every rate with it."""
    taken = []
    for _ in range(3):
        began, total = time.perf_counter(), 0
        for step in range(STEPS):
            total += step & 7
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


class Others:
    """How much of the machine other programs use: all CPU time since it was made, without ours and our children's."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._busy, self._ours = _busy(), cpu_of_family(os.getpid())

    def cores(self) -> float:
        """On average since it was made. What our children that nobody has waited for used is counted as ours."""
        busy, ours = _busy() - self._busy, cpu_of_family(os.getpid()) - self._ours
        return max(0.0, busy - ours) / max(0.001, time.monotonic() - self._began)


def _busy() -> float:
    """Seconds of CPU used by all since boot; waiting for the disk is not using."""
    user, nice, system, _idle, _wait, irq, softirq, steal, *_ = (int(part) for part in _first("/proc/stat").split()[1:])
    return (user + nice + system + irq + softirq + steal) / TICK


def _first(path: str) -> str:
    with open(path) as file:
        return file.readline()


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _filesystem(directory: Path) -> str:
    place, kind = "", "?"
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, found, *_ = line.split()
        if directory.resolve().is_relative_to(mount) and len(mount) >= len(place):
            place, kind = mount, found
    return kind
