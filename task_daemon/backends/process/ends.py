"""Being told within milliseconds that a process has ended, without polling: one thread waits on pidfds (pidfd_open(2))."""

import contextlib
import logging
import os
import selectors
import threading
from collections import deque
from collections.abc import Callable

from task_daemon.backends.process.identity import Identity, alive, pin

log = logging.getLogger("task_daemon.backends")

WATCHED = 256  # descriptors spent on this; ends of further processes are seen at the zone's regular polls


class Ends:
    """`add` is called by the zone's worker; `wake` is called on the thread of this object. Nothing runs before `start`."""

    def __init__(self, zone: str) -> None:
        self._zone = zone
        self._wake: Callable[[], None] | None = None
        self._new: deque[tuple[int, Identity]] = deque()
        self._watched: set[Identity] = set()
        self._bell = -1
        self._thread: threading.Thread | None = None
        self._closing = False

    def start(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        if self._thread is None:
            self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self._thread = threading.Thread(target=self._run, name=f"ends-{self._zone}", daemon=True)
            self._thread.start()

    def add(self, identity: Identity) -> None:
        """Watch a process, once. One that has ended meanwhile wakes at once."""
        if self._wake is None or self._closing or identity in self._watched or len(self._watched) >= WATCHED:
            return
        try:
            descriptor = pin(identity.pid)
        except OSError as error:
            log.debug("zone %s: the end of process %d will be seen by polling: %s", self._zone, identity.pid, error)
            return
        if descriptor is None or not alive(identity):
            if descriptor is not None:
                os.close(descriptor)
            self._wake()
            return
        self._watched.add(identity)
        self._new.append((descriptor, identity))
        os.eventfd_write(self._bell, 1)

    def close(self) -> None:
        self._closing = True
        if self._thread is not None:
            os.eventfd_write(self._bell, 1)
            self._thread.join(timeout=5)
            self._thread = None
            os.close(self._bell)

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._bell, selectors.EVENT_READ)
            while not self._closing:
                ended = [(key.fd, key.data) for key, _ in selector.select() if key.fd != self._bell]
                self._take_new(selector)
                for descriptor, identity in ended:
                    selector.unregister(descriptor)
                    os.close(descriptor)
                    self._watched.discard(identity)
                if ended and self._wake is not None and not self._closing:
                    self._wake()
            self._take_new(selector)
            for key in list(selector.get_map().values()):
                if key.fd != self._bell:
                    os.close(key.fd)

    def _take_new(self, selector: selectors.BaseSelector) -> None:
        with contextlib.suppress(BlockingIOError):  # when it was an end that woke us, not a new process
            os.eventfd_read(self._bell)
        while self._new:
            descriptor, identity = self._new.popleft()
            selector.register(descriptor, selectors.EVENT_READ, identity)
