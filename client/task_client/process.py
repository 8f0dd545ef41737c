"""Which process this is, so that a child shares nothing with its parent by mistake."""

import mmap
import os

WIPE_ON_FORK = 18  # MADV_WIPEONFORK of Linux 4.14 and later, for which Python has no name


def own_pid() -> int:
    """As `os.getpid`, which asks the kernel each time.

    The kernel wipes the page in a child, whoever forks: a server written in C (uWSGI) runs none of the functions that
    `os.register_at_fork` was given.
    """
    global _pid
    if not _page[0]:
        _pid = os.getpid()
        _page[0] = 1
    return _pid


_pid = 0
_page = mmap.mmap(-1, 1, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
try:
    _page.madvise(WIPE_ON_FORK)
except OSError:  # not every kernel can
    own_pid = os.getpid
