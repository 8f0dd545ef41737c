"""How far a process is that somebody else started, from outside: its position in the file it reads.

The rule: of all regular files which the process has open for reading, the largest one whose position has moved between
two looks is the one being worked through; percent is position against size. The choice stays until that file is closed.
Files read without moving the position (pread, mmap: databases, QEMU) tell nothing, and then progress is unknown.
"""

import os
import stat
from collections import OrderedDict
from collections.abc import Iterator

from msgspec import Struct

from task_daemon.core.model import Progress

Key = tuple[int, int]  # device and inode

REMEMBERED = 4096  # tasks whose positions are kept; one that fell out just needs a second look again
DESCRIPTORS = 256  # looked at for each process


class Open(Struct, frozen=True):
    """A regular file open for reading; both numbers in bytes."""

    position: int
    size: int


class Memory(Struct):
    positions: dict[Key, int]
    chosen: Key | None = None


class Reading:
    """Remembers, for each task, where its process was when last looked at. One thread at a time."""

    def __init__(self) -> None:
        self._memories: OrderedDict[str, Memory] = OrderedDict()

    def look(self, uid: str, pid: int) -> Progress | None:
        files = dict(_open_for_reading(pid))
        memory = self._memories.setdefault(uid, Memory(positions={}))
        self._memories.move_to_end(uid)
        if len(self._memories) > REMEMBERED:
            self._memories.popitem(last=False)
        if memory.chosen not in files:
            moved = [key for key, file in files.items() if memory.positions.get(key, file.position) != file.position]
            memory.chosen = max(moved, key=lambda key: files[key].size, default=None)
        memory.positions = {key: file.position for key, file in files.items()}
        if memory.chosen is None:
            return None
        file = files[memory.chosen]
        done = min(file.position, file.size)
        return Progress(percent=100.0 * done / file.size, done=done, total=file.size, unit="bytes")

    def drop(self, uid: str) -> None:
        self._memories.pop(uid, None)


def _open_for_reading(pid: int) -> Iterator[tuple[Key, Open]]:
    """Nothing for a process that has just ended or may not be looked into."""
    try:
        numbers = os.listdir(f"/proc/{pid}/fd")[:DESCRIPTORS]
    except OSError:
        return
    for number in numbers:
        try:
            info = os.stat(f"/proc/{pid}/fd/{number}")
            if not stat.S_ISREG(info.st_mode) or info.st_size == 0:
                continue
            with open(f"/proc/{pid}/fdinfo/{number}") as file:
                fields = dict(line.split(":", 1) for line in file if ":" in line)
        except OSError:
            continue  # closed meanwhile
        if int(fields["flags"], 8) & os.O_ACCMODE != os.O_WRONLY:
            yield (info.st_dev, info.st_ino), Open(position=int(fields["pos"]), size=info.st_size)
