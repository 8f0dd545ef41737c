"""How long to wait before the next try. Pure: the random number comes from the caller."""

from collections.abc import Sequence

CALLBACK_SCHEDULE: tuple[float, ...] = (0, 1, 2, 5, 15, 60, 300, 900, 3600, 10800, 21600, 43200, 86400)
"""Seconds before attempt 1, 2, ...: 13 attempts over about 46 hours, the tail as in Standard Webhooks."""

CLIENT_ERROR_TRIES = 3  # answers like 404: a receiver being rolled out often gives them for a minute
RETRY_AFTER_CAP = 3600.0  # seconds; a receiver may not push us further away than this
JITTER = 0.2
ZONE_BACKOFF_CAP = 60.0  # seconds


def before_attempt(attempts: int, chance: float, schedule: Sequence[float] = CALLBACK_SCHEDULE) -> float | None:
    """Seconds until the next attempt after `attempts` failed ones; None when the schedule is used up.

    `chance` is a random number in [0, 1) that spreads the wait by ± 20 %.
    """
    if attempts >= len(schedule):
        return None
    return schedule[attempts] * (1 + JITTER * (2 * chance - 1))


def before_poll(failures: int, interval: float) -> float:
    """Seconds until a zone that gave no answer `failures` times in a row is asked again."""
    if failures <= 1:
        return interval
    return float(max(interval, min(ZONE_BACKOFF_CAP, interval * 2.0 ** min(failures - 1, 10))))
