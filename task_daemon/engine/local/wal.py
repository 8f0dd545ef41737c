"""The write-ahead log gets its whole length at once, when somebody begins to register one task after the other on a quick disk.

A commit that makes a file longer puts the new length on disk, too: the first thousand registrations after each start took half
as long again as those that follow, which write over what is there (SQLite keeps the file at its length and begins again at its
head). A daemon with little to do is spared that, and so is a poor disk, which may need a second for 20 MiB.
"""

import logging
import os
from pathlib import Path

from task_daemon.engine.local.reserve import has_room

log = logging.getLogger("task_daemon.engine")

FRAME = 4096 + 24  # bytes: a page and what says which (SQLite's file format, 4.1)
PIECE = bytes(1 << 20)


def fill(store: Path, frames: int) -> None:
    """Make the log of a store so long. The caller has begun a transaction that writes and has written nothing in it, so nobody
    else does: SQLite puts its next frame where the last one ended, and zeros are no frame. On a disk with little room the log
    stays as it is."""
    try:
        descriptor = os.open(f"{store}-wal", os.O_WRONLY | os.O_CLOEXEC)
    except OSError as error:
        log.debug("cannot make the log of %s longer: %s", store, error)
        return
    try:
        _lengthen(descriptor, frames * FRAME)
    except OSError as error:
        log.warning("cannot make the log of %s longer: %s", store, error)
    finally:
        os.close(descriptor)


def _lengthen(descriptor: int, length: int) -> None:
    end = place = os.fstat(descriptor).st_size
    if not has_room(descriptor, length - end):
        return
    try:
        while place < length:
            place += os.pwrite(descriptor, PIECE[: length - place], place)
        os.fsync(descriptor)
    except OSError:
        os.ftruncate(descriptor, end)
        raise
