"""What one registration costs its caller, counted, not timed: the calls of Python and C functions in the caller's process.

The baseline is what was counted when the code was last looked at for its cost. Beyond it by more than a tenth a change made
registering dearer: find out why. Far below it: lower it, so that what was won is kept.
"""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from task_client.client import Client
from task_client.legacy import register_task
from tests.client.scripted import Reply, ScriptedServer, task

TIMES = ("started_at", "updated_at", "finished_at", "deadline_at", "last_polled_at", "last_progress_at", "next_poll_at")
CALLS = 20
MORE, LESS = 1.1, 0.7  # times the baseline


def counted(work: Callable[[], Any]) -> float:
    calls = 0

    def count(_frame: FrameType, event: str, _what: Any) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}

    work()  # connects, and loads what is loaded on first use
    sys.setprofile(count)
    try:
        for _ in range(CALLS):
            work()
    finally:
        sys.setprofile(None)
    return calls / CALLS


@pytest.mark.parametrize(("name", "baseline"), [("Client", 151.0), ("register_task", 107.0)])
def test_registration_calls_no_more_functions_than_it_did(server: ScriptedServer, name: str, baseline: float) -> None:
    headers = {"Task-Daemon-Version": "0.1.0", "X-Request-Id": "175bef5a-2", "Location": "/v1/tasks/u1", "Retry-After": "1"}
    told = task(**dict.fromkeys(TIMES[::2], "2026-11-21T17:55:16.009Z"), owner={"uid": 0, "gid": 0, "pid": 7})
    server.on("POST", "/v1/tasks", Reply(202, told, headers))
    server.on("POST", "/", Reply(200, "", headers))

    with Client(server.path) as client:
        calls = counted(
            (lambda: client.register("disk-1", "backup", "vm1", labels={"rack": "a7"}))
            if name == "Client"
            else (lambda: register_task("disk-1", "backup", "vm1", unix_socket=server.path))
        )

    assert LESS * baseline <= calls <= MORE * baseline
    assert server.connections == 1
