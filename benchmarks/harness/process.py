"""A process that is measured from outside, by /proc."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

TICK = os.sysconf("SC_CLK_TCK")
PAGE = resource.getpagesize()
WITHIN = 30.0  # seconds any single step may take


class Process:
    """Started when made, killed when its `with` block is left. What it says is in `log`."""

    def __init__(self, command: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> None:
        self.log = log
        self.spawned = time.monotonic()
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env={**os.environ, **(env or {})}
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def cpu(self) -> float:
        """Seconds of CPU it has used so far, with its children that have ended; from the scheduler where that is finer."""
        return cpu_of(self.pid)

    def rss(self) -> int:
        """Bytes."""
        return self._status("VmRSS:")

    def peak_rss(self) -> int:
        """Bytes."""
        return self._status("VmHWM:")

    def alive(self) -> bool:
        return self._process.poll() is None

    def await_that(self, what: str, holds: Callable[[], bool], within: float = WITHIN, every: float = 0.002) -> float:
        """Seconds since it was spawned when `holds()` became true, looked at `every` so many seconds. Ends the benchmark when
        that takes too long."""
        end = time.monotonic() + within
        while not holds():
            if not self.alive():
                raise SystemExit(f"cannot go on: it ended with {self._process.returncode} before {what}: {self.said()}")
            if time.monotonic() > end:
                raise SystemExit(f"cannot go on: not within {within:g} s: {what}: {self.said()}")
            time.sleep(every)
        return time.monotonic() - self.spawned

    def stop(self, within: float = WITHIN) -> float:
        """Seconds from SIGTERM to its end, which must be a clean one."""
        began = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(within)
        if code != 0:
            raise SystemExit(f"cannot trust the figures: the process ended with {code}: {self.said()}")
        return time.monotonic() - began

    def kill(self) -> None:
        self._process.kill()  # nothing happens if it has ended
        self._process.wait(WITHIN)

    def said(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-2000:]

    def _status(self, name: str) -> int:
        return int(Path(f"/proc/{self.pid}/status").read_text().partition(name)[2].split()[0]) * 1024

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def module(name: str, *arguments: str) -> list[str]:
    """The command that runs one of our modules."""
    return [sys.executable, "-m", name, *arguments]


def cpu_of(pid: int) -> float:
    """Seconds of CPU of a process with all its threads, and of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    children = (int(fields[13]) + int(fields[14])) / TICK
    try:  # nanoseconds, but for each thread that is alive; threads that have ended are only in the ticks
        threads = sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat"))
    except (OSError, IndexError):
        threads = 0
    return max((int(fields[11]) + int(fields[12])) / TICK, threads / 1e9) + children


def family(pid: int) -> list[int]:
    """A process and all that descend from it, as far as they are alive."""
    found = [pid]
    for parent in found:
        try:
            for thread in Path(f"/proc/{parent}/task").glob("*/children"):
                found += [int(child) for child in thread.read_text().split()]
        except OSError:
            continue
    return found


def cpu_of_family(pid: int) -> float:
    total = 0.0
    for member in family(pid):
        try:
            total += cpu_of(member)
        except OSError:
            continue
    return total


def memory_of_family(pid: int) -> tuple[int, int]:
    """RSS and PSS (shared pages divided among those who share them) of a process and all that descend from it, in bytes."""
    rss = pss = 0
    for member in family(pid):
        try:
            text = Path(f"/proc/{member}/smaps_rollup").read_text()
        except OSError:
            continue
        rss += int(text.partition("\nRss:")[2].split()[0]) * 1024
        pss += int(text.partition("\nPss:")[2].split()[0]) * 1024
    return rss, pss
