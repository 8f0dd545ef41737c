"""Names for tasks and deliveries: UUIDv7 text (RFC 9562), sortable by the time they were made."""

import os
from functools import lru_cache

_HELD_BACK = 10_000  # milliseconds a clock may step back before the order of the names follows it
_COUNTER_BITS = 12
_AT_ONCE = 256  # names' worth of random bits that are asked for together: asking the kernel is most of the cost of a name
_VARIANT = dict(zip("0123456789abcdef", "89ab" * 4, strict=True))  # the two highest bits of a digit become 1 and 0

_last_ms = 0
_counter = 0
_ends: list[str] = []  # of the next names
os.register_at_fork(after_in_child=_ends.clear)  # two processes must not give the same names


def new_uid(now: float) -> str:
    """A name never given before; names made one after the other sort in that order, within a millisecond too.

    `now` is wall time in seconds. The 12 bits after the time are a counter (RFC 9562, 6.2, method 1), the last 62 are random.
    The order is promised to one thread (the event loop); being unique does not depend on it.
    """
    global _last_ms, _counter
    ms, last = int(now * 1000), _last_ms
    if last - _HELD_BACK < ms <= last:
        ms, counter = last, _counter + 1
        if counter >> _COUNTER_BITS:
            ms, counter = ms + 1, 0
    else:
        counter = int(_end()[-3:], 16) >> 2
    _last_ms, _counter = ms, counter
    return f"{_beginning(ms)}{counter:03x}-{_end()}"


@lru_cache(maxsize=2)
def _beginning(ms: int) -> str:
    text = f"{ms & (1 << 48) - 1:012x}"
    return f"{text[:8]}-{text[8:]}-7"


def _end() -> str:
    """The variant and 62 random bits."""
    while True:
        try:
            return _ends.pop()
        except IndexError:
            digits = os.urandom(8 * _AT_ONCE).hex()
            made = [digits[place : place + 16] for place in range(0, len(digits), 16)]
            _ends.extend([f"{_VARIANT[each[0]]}{each[1:4]}-{each[4:]}" for each in made])
