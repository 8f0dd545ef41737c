"""A crowd of things that went well: which of them have a line in the log, and how many do not."""

import asyncio
from collections.abc import Callable

LINES = 50  # a second
WITHIN = 1.0  # seconds


class Crowd:
    """The first `LINES` of a second have a line; the others are counted, and `tell` is called with their number. Event loop."""

    def __init__(self, tell: Callable[[int], None]) -> None:
        self._tell = tell
        self._since = -WITHIN
        self._written = 0
        self._left_out = 0

    def has_line(self, now: float) -> bool:
        """Whether one that comes now has a line. `now`: monotonic."""
        if now - self._since >= WITHIN:
            self._since, self._written = now, 0
        self._written += 1
        if self._written <= LINES:
            return True
        if not self._left_out:
            asyncio.get_running_loop().call_later(WITHIN, self._count)
        self._left_out += 1
        return False

    def _count(self) -> None:
        left_out, self._left_out = self._left_out, 0
        self._tell(left_out)
