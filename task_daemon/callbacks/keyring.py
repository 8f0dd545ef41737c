"""The keys that sign, as their files are now: a key is changed without a restart."""

import asyncio
import logging
import os
from collections.abc import Iterator, Mapping

from task_daemon.callbacks.signing import Key, read_keys
from task_daemon.core.errors import ConfigError
from task_daemon.core.ports import Clock

log = logging.getLogger("task_daemon.callbacks")

LOOK_EVERY = 2.0  # seconds

Stamp = tuple[int, ...] | None


class KeyRing(Mapping[str, tuple[Key, ...]]):
    """Keys by name. A file that cannot be used any more changes nothing: its keys of before go on signing."""

    def __init__(self, files: Mapping[str, str]) -> None:
        """Read all files. Raises ConfigError with a sentence for every one that cannot be used."""
        self._files = dict(files)
        self._stamps = {name: _stamp(path) for name, path in files.items()}
        self._keys = read_keys(files)

    def __getitem__(self, name: str) -> tuple[Key, ...]:
        return self._keys[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def look(self) -> None:
        """Read files that were changed since the last look; says in the log what it found. Any thread, one at a time."""
        for name, path in self._files.items():
            stamp = _stamp(path)  # before reading: what changes meanwhile is seen with the next look
            if stamp == self._stamps[name]:
                continue
            self._stamps[name] = stamp
            try:
                found = read_keys({name: path})
            except ConfigError as error:
                log.error("%s; its keys of before go on signing", error)
                continue
            self._keys |= found
            log.info("read key %s again from %s: %d now sign", name, path, len(found[name]))

    async def follow(self, clock: Clock) -> None:
        """Look now and then, until cancelled. On another thread, for a file system that hangs."""
        never = asyncio.Event()
        while self._files:
            await clock.sleep(clock.monotonic() + LOOK_EVERY, never)
            await asyncio.to_thread(self.look)


def _stamp(path: str) -> Stamp:
    """What changes when a file is written or replaced; None: it cannot be looked at."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
