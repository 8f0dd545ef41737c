"""The access log of a crowd of registrations: some lines, and a count of the others."""

import asyncio
import logging

import pytest
from tornado.platform.asyncio import AsyncIOLoop

from task_daemon.api.access_log import Thinned
from task_daemon.core.crowd import LINES


async def test_a_crowd_has_some_lines_and_one_that_counts_the_others(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "task_daemon.api")
    later = []
    monkeypatch.setattr(asyncio.get_running_loop(), "call_later", lambda seconds, call: later.append((seconds, call)))
    monkeypatch.setattr("time.monotonic", lambda: 7.0)
    thinned = Thinned()
    assert [thinned.has_line() for _ in range(LINES + 3)] == [True] * LINES + [False] * 3
    monkeypatch.setattr("time.monotonic", lambda: 8.0)
    assert thinned.has_line()
    ((seconds, tell),) = later
    tell()

    assert seconds == 1.0
    assert [record.getMessage().partition(" more")[0] for record in caplog.records] == ["3"]


def test_whoever_asks_for_all_lines_gets_them(caplog: pytest.LogCaptureFixture, io_loop: AsyncIOLoop) -> None:
    caplog.set_level(logging.DEBUG, "task_daemon.api")
    thinned = Thinned()

    assert all(thinned.has_line() for _ in range(2 * LINES))
