"""What one registration costs its caller, counted, not timed: the calls of functions in the caller's process, and which of them
ask the kernel."""

import json
import struct
from collections.abc import Callable
from typing import Any

import pytest

from task_client import over_socket
from task_client.client import Client
from task_client.legacy import register_task
from tests.client.scripted import Reply, ScriptedServer, task
from tests.costs import Calls, counted, expect_cost

TIMES = ("started_at", "updated_at", "finished_at", "deadline_at", "last_polled_at", "last_progress_at", "next_poll_at")
HEADERS = {"Task-Daemon-Version": "0.1.0", "X-Request-Id": "175bef5a-2", "Location": "/v1/tasks/u1", "Retry-After": "1"}
CALLS = 20


def calls_of(work: Callable[[], Any]) -> tuple[float, set[str]]:
    """How many, and those of sockets, files and clocks, for each piece of work."""
    for _ in range(3):
        work()  # connects, and loads what is loaded on first use
    with counted(Calls()) as calls:
        calls.by_name = {}
        for _ in range(CALLS):
            work()
    asking = {f"{name} {count / CALLS:g}" for name, count in calls.by_name.items() if name.startswith(("socket.", "poll."))}
    return calls.made / CALLS, asking


@pytest.mark.parametrize("name", ["Client", "Client, looked at", "register_task"])
def test_registration_calls_no_more_functions_than_it_did(
    server: ScriptedServer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(over_socket, "_QUICK", struct.pack("ll", 60, 0))  # on a busy machine an answer may take its time
    told = task(**dict.fromkeys(TIMES[::2], "2026-11-21T17:55:16.009Z"), owner={"uid": 0, "gid": 0, "pid": 7})
    server.on("POST", "/v1/tasks", Reply(202, json.dumps(told, separators=(",", ":")).encode(), HEADERS))
    server.on("POST", "/", Reply(200, "", HEADERS))

    with Client(server.path) as client:
        works: dict[str, Callable[[], Any]] = {
            "Client": lambda: client.register("disk-1", "backup", "vm1", labels={"rack": "a7"}).uid,
            "Client, looked at": lambda: client.register("disk-1", "backup", "vm1", labels={"rack": "a7"}).progress,
            "register_task": lambda: register_task("disk-1", "backup", "vm1", unix_socket=server.path),
        }
        made, asking = calls_of(works[name])

    assert asking == {"socket.send 1", "socket.recv 1"}
    assert server.connections == 1
    expect_cost(__file__, name, made)
