"""Idempotency keys: what makes a registration that is repeated the same one."""

import os
from collections import deque

from task_client.process import own_pid

SIZE = 16  # bytes of chance in a key
AT_ONCE = 256  # keys made with one question to the kernel

_keys: deque[str] = deque()  # its methods are atomic; a lock might be held at a fork
_pid = 0


def new_key() -> str:
    """32 hexadecimal digits, which no other call gets, in no process."""
    global _pid
    if _pid != own_pid():
        _keys.clear()  # the parent goes on with these
        _pid = own_pid()
    while True:
        try:
            return _keys.pop()
        except IndexError:
            drawn = os.urandom(SIZE * AT_ONCE).hex()
            _keys.extend([drawn[at : at + 2 * SIZE] for at in range(0, len(drawn), 2 * SIZE)])
