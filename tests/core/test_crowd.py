"""Which of a crowd have a line in the log."""

import asyncio

import pytest

from task_daemon.core.crowd import LINES, WITHIN, Crowd


async def test_first_of_a_second_have_a_line_and_the_others_are_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    later: list[tuple[float, object]] = []
    counted: list[int] = []
    monkeypatch.setattr(asyncio.get_running_loop(), "call_later", lambda seconds, call: later.append((seconds, call)))
    crowd = Crowd(counted.append)
    assert [crowd.has_line(7.0 + n / 1000) for n in range(LINES + 3)] == [True] * LINES + [False] * 3
    assert crowd.has_line(7.0 + WITHIN)
    ((seconds, count),) = later
    assert callable(count)
    count()

    assert (seconds, counted) == (WITHIN, [3])


async def test_next_crowd_is_counted_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []
    monkeypatch.setattr(asyncio.get_running_loop(), "call_later", lambda _seconds, call: later.append(call))
    crowd = Crowd(counted.append)
    for now in (7.0, 9.0):
        later: list[object] = []
        for _ in range(LINES + 2):
            crowd.has_line(now)
        (count,) = later
        assert callable(count)
        count()

    assert counted == [2, 2]
