"""Children of the test's process."""

import ctypes
import os
from collections.abc import Callable

FORKS: list[Callable[[], int]] = [os.fork, ctypes.PyDLL(None).fork]
"""By Python, and by C, as a server does that has Python built in: nobody tells Python then."""


def in_child(fork: Callable[[], int], work: Callable[[], object]) -> str:
    """What `work` answers in a child, as text."""
    ours, theirs = os.pipe()
    child = fork()
    if child == 0:
        try:
            os.write(theirs, str(work()).encode())
        finally:
            os._exit(0)
    os.close(theirs)
    with open(ours, "rb") as told:
        found = told.read().decode()
    os.waitpid(child, 0)
    return found
