"""The feed as a stream of server-sent events (`text/event-stream`), over one answer that goes on until somebody hangs up.

What is durable has an `id`, its sequence, with which a client that comes again goes on without a gap. A reader that does not
read is waited for and holds nothing in memory but one page; the server cuts it off when it has read nothing for a while.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from task_daemon.core.errors import QueueFull, QuotaExceeded
from task_daemon.core.model import Event, Task
from task_daemon.core.view import event_view, progress_event_view

CONTENT_TYPE = "text/event-stream"
HEARTBEAT = 15.0  # seconds without anything else
COME_AGAIN = b"retry: 1000\n\n"  # milliseconds after which a client connects again
BEAT = b": heartbeat\n\n"
DRAINING = b": the daemon is stopping; come again\n\n"


class Streams:
    """How many streams there are; `at_once` limits all of them, `per_uid` those of one user."""

    def __init__(self, at_once: int = 512, per_uid: int = 128) -> None:
        self._at_once = at_once
        self._per_uid = per_uid
        self._open: Counter[int] = Counter()

    def __len__(self) -> int:
        return self._open.total()

    @contextmanager
    def one(self, uid: int) -> Iterator[None]:
        """Raises QuotaExceeded, QueueFull."""
        if self._open[uid] >= self._per_uid:
            text = f"cannot open another stream: user {uid} has {self._per_uid} ([limits] streams_per_uid); close one"
            raise QuotaExceeded(text, retry_after=10.0)
        if len(self) >= self._at_once:
            text = f"cannot open another stream: {self._at_once} are open ([limits] streams); ask with wait=... instead"
            raise QueueFull(text, retry_after=10.0)
        self._open[uid] += 1
        try:
            yield
        finally:
            self._open[uid] -= 1
            if not self._open[uid]:
                del self._open[uid]


def of_event(event: Event) -> bytes:
    return b"id: %d\n%s" % (event.seq, _block(event.type, event_view(event)))


def of_progress(task: Task) -> bytes:
    """Without an id: it is not durable, and nobody can go on from it."""
    view = progress_event_view(task)
    return _block(view["type"], view)


def of_cursor(seq: int) -> bytes:
    """Nothing but where to go on from, past what was left out."""
    return b"id: %d\n\n" % seq


def _block(kind: str, view: dict[str, Any]) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), msgspec.json.encode(view))
