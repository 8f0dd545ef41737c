"""What it costs to have something on this disk for certain."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

BLOCK = 4096  # bytes: a page of the store
WRITES = 200


@dataclass(frozen=True)
class Cost:
    """Milliseconds of one append of 4 KiB with fdatasync."""

    median: float
    p99: float


def measure(directory: Path, writes: int = WRITES) -> Cost:
    file = directory / "fsync"
    took: list[float] = []
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        for _ in range(writes):
            began = time.perf_counter()
            os.write(descriptor, bytes(BLOCK))
            os.fdatasync(descriptor)
            took.append(1000 * (time.perf_counter() - began))
    finally:
        os.close(descriptor)
        file.unlink()
    took.sort()
    return Cost(took[len(took) // 2], took[min(len(took) - 1, len(took) * 99 // 100)])
