"""taskctl watch on a real terminal: bars while the work goes on, a line for each end, nothing left over."""

import os
import pty
import subprocess
import sys

from tests.client.scripted import Reply, ScriptedServer, task


def test_bars_show_rate_and_time_left_and_ends_are_told_above_them(server: ScriptedServer) -> None:
    moving = {"percent": 40.0, "rate": 12_340_000.0, "unit": "bytes", "eta_seconds": 300.0}
    first, second = task("u1", id="d1", progress=moving), task("u2", id="d2", progress=moving)
    server.on("GET", "/v1/tasks", Reply(body={"tasks": [first, second], "cursor": 9, "next_page_token": None}))
    ends = [[{"seq": 10, "uid": "u2", "type": "task.failed"}], [{"seq": 11, "uid": "u1", "type": "task.succeeded"}]]
    server.on("GET", "/v1/events", *(Reply(body={"events": end, "cursor": 10}) for end in ends))
    for before, state in ((first, "succeeded"), (second, "failed")):
        server.on(
            "GET",
            f"/v1/tasks/{before['uid']}",
            Reply(body=before),
            Reply(body=before | {"state": state, "done": True, "revision": 2}),
        )
    program = [sys.executable, "-c", "from task_client.cli import main; main()", "--socket", server.path, "watch"]
    ours, theirs = pty.openpty()
    env = {"TERM": "xterm", "COLUMNS": "120", "LINES": "24", "LC_ALL": "C.UTF-8"}

    with open(theirs, "wb", closefd=True) as terminal:
        code = subprocess.run(program, stdin=subprocess.DEVNULL, stdout=terminal, stderr=terminal, timeout=60, env=env).returncode
    shown = os.read(ours, 65536).decode()
    os.close(ours)

    assert code == 1
    assert "backup d1: running" in shown
    assert "12.3 MB/s, 5 min left" in shown
    assert shown.index("u2 failed") < shown.index("u1 succeeded")
