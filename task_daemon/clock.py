"""The clocks: the real one, one that runs faster, and one that tests move by hand."""

import asyncio
import time


class SystemClock:
    """Time as the machine has it."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, until: float | None, woken: asyncio.Event) -> None:
        if until is None:
            await woken.wait()
            return
        left = until - time.monotonic()
        if left <= 0:
            return
        loop = asyncio.get_running_loop()
        timer = loop.call_later(left, woken.set)
        try:
            await woken.wait()
        finally:
            timer.cancel()


class FastClock(SystemClock):
    """From now on so many seconds of this clock go into one."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._wall, self._begun = time.time(), time.monotonic()

    def now(self) -> float:
        return self._wall + (time.monotonic() - self._begun) * self._speed

    def monotonic(self) -> float:
        return self._begun + (time.monotonic() - self._begun) * self._speed

    async def sleep(self, until: float | None, woken: asyncio.Event) -> None:
        if until is not None:  # at least for a moment: what is due every second must not keep the loop from everything else
            until = max(self._begun + (until - self._begun) / self._speed, time.monotonic() + 0.001)
        await super().sleep(until, woken)


class FakeClock:
    """Stands still until `advance`; whoever sleeps is woken when its time has come. Wall and monotonic time move together,
    and `jump` moves the wall alone. `advance` may be called from any thread."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self._now = now
        self._monotonic = 1000.0
        self._sleepers: dict[int, tuple[float, asyncio.Event, asyncio.AbstractEventLoop]] = {}

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        self._now += seconds
        self._monotonic += seconds
        for until, woken, loop in list(self._sleepers.values()):
            if until <= self._monotonic and not loop.is_closed():
                loop.call_soon_threadsafe(woken.set)

    def jump(self, seconds: float) -> None:
        """The wall clock is set; intervals do not notice."""
        self._now += seconds

    async def sleep(self, until: float | None, woken: asyncio.Event) -> None:
        if until is not None and until <= self._monotonic:
            return
        key = id(woken)
        if until is not None:
            self._sleepers[key] = (until, woken, asyncio.get_running_loop())
        try:
            await woken.wait()
        finally:
            self._sleepers.pop(key, None)
