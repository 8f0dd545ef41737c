"""Waiting for what another thread or process does: bounded, and the failure says what was waited for."""

import threading
import time
from collections.abc import Callable

_PAUSE = threading.Event()

PATIENCE = 60.0  # seconds: what is only slow on a busy machine takes less, what hangs takes more


def eventually(what: str, holds: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Return as soon as `holds()` is true; fail after `seconds`."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        _PAUSE.wait(0.01)
