"""Room that is kept on the disk of the store, and given up when the disk is full: ends and callbacks are still recorded then,
and only new work is refused."""

import logging
import os
from contextlib import suppress
from pathlib import Path

log = logging.getLogger("task_daemon.engine")

SIZE = 4 * 1024 * 1024  # bytes; the end of one task with its event and its delivery takes about 10 KiB of WAL at most
NAME = "reserve"


def has_room(where: Path | int, size: int) -> bool:
    """Whether the disk of a path or descriptor has twice as many bytes to spare: half is left to others. Raises OSError."""
    room = os.statvfs(where)
    return room.f_bavail * room.f_frsize >= 2 * size


class Reserve:
    """A file of blocks that are allocated and never written. Belongs to whoever commits.

    `missing`: the disk is full, or was until now. It is made again only when there is twice as much room as it takes, so that
    the space it gave up does not look like space that came back.
    """

    def __init__(self, directory: Path, size: int = SIZE) -> None:
        self._path = directory / NAME
        self._size = size
        self.missing = False

    def make(self) -> bool:
        """Whether it is there now."""
        try:
            if self._path.exists() and self._path.stat().st_blocks * 512 >= self._size:
                self.missing = False
                return True
            if not has_room(self._path.parent, self._size):
                self.missing = True
                return False
            self._allocate()
        except OSError as error:
            self.missing = True
            log.debug("cannot make %s: %s", self._path, error)
            with suppress(OSError):
                self._path.unlink(missing_ok=True)  # a part of it would take the last room
            return False
        if self.missing:
            log.warning("the disk of the store has room again: new work is accepted")
        self.missing = False
        return True

    def give_up(self) -> bool:
        """Make room for what must be written; whether there was any to be made."""
        if not self.missing:
            log.error("the disk of the store is full: new work is refused; %s is given up for ends and callbacks", self._path)
        self.missing = True
        try:
            self._path.unlink()
        except OSError:
            return False
        return True

    def _allocate(self) -> None:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, self._size)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
