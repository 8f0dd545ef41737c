"""Names for tasks and deliveries: UUIDv7 text (RFC 9562), sortable by the time they were made."""

import secrets

_HELD_BACK = 10_000  # milliseconds a clock may step back before the order of the names follows it
_COUNTER_BITS = 12

_last_ms = 0
_counter = 0


def new_uid(now: float) -> str:
    """A name never given before; names made one after the other sort in that order, within a millisecond too.

    `now` is wall time in seconds. The 12 bits after the time are a counter (RFC 9562, 6.2, method 1), the last 62 are random.
    The order is promised to one thread (the event loop); being unique does not depend on it.
    """
    global _last_ms, _counter
    ms = int(now * 1000)
    if _last_ms - _HELD_BACK < ms <= _last_ms:
        ms, _counter = _last_ms, _counter + 1
        if _counter >> _COUNTER_BITS:
            ms, _counter = ms + 1, 0
    else:
        _counter = secrets.randbits(_COUNTER_BITS - 2)
    _last_ms = ms
    value = (ms & (1 << 48) - 1) << 80 | 7 << 76 | _counter << 64 | 2 << 62 | secrets.randbits(62)
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
