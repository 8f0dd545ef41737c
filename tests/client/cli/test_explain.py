"""taskctl explain: the answer as lines for people."""

import json

from click.testing import CliRunner

from task_client.cli import main
from tests.client.scripted import Reply, ScriptedServer, problem

NOW = "2026-11-21T12:00:00.000Z"
EXPLAINED = {
    "uid": "u1",
    "id": "disk-1",
    "action": "backup",
    "mode": "track",
    "state": "running",
    "percent": 42.0,
    "error": None,
    "waiting_for": "zone 'vm1', which is unreachable: refused",
    "now": NOW,
    "last_polled_at": "2026-11-21T11:59:54.000Z",
    "next_poll_at": "2026-11-21T12:00:04.000Z",
    "deadline_at": "2026-11-22T00:00:00.000Z",
    "missed_polls": 0,
    "to_clean_up": True,
    "zone": {
        "zone": "vm1",
        "state": "unreachable",
        "breaker": "open",
        "failures": 3,
        "last_answer_at": "2026-11-21T11:50:00.000Z",
        "errors": [{"at": "2026-11-21T11:59:54.000Z", "error": "refused\n\x1b[31mred"}],
    },
    "callbacks": [
        {
            "id": "c1",
            "type": "task.progress",
            "url": "http://127.0.0.1/hook",
            "state": "pending",
            "attempts": 2,
            "next_at": "2026-11-21T12:05:00.000Z",
            "waits_for": "its next try",
            "last_answer": {"at": "2026-11-21T11:58:00.000Z", "seconds": 0.1, "status": 500, "error": "HTTP 500"},
        },
        {"id": "c2", "type": "task.size", "url": None, "state": "dead", "attempts": 1, "last_answer": None, "redacted": True},
    ],
}
TOLD = """\
backup of disk-1 in zone vm1 (track): running, 42.0 %
waits for: zone 'vm1', which is unreachable: refused
next poll: in 4 s (2026-11-21T12:00:04.000Z)
last poll: 6 s ago (2026-11-21T11:59:54.000Z)
deadline: in 12 h (2026-11-22T00:00:00.000Z)
to clean up: the backend still has something of it; tried again with each poll
zone vm1: unreachable, breaker open, 3 polls in a row failed
  last answer: 10 min ago (2026-11-21T11:50:00.000Z)
  error 6 s ago (2026-11-21T11:59:54.000Z): refused\ufffd\ufffd[31mred
callback c1 task.progress to http://127.0.0.1/hook: pending
  waits for: its next try, in 5 min (2026-11-21T12:05:00.000Z)
  last answer of 2, 2 min ago (2026-11-21T11:58:00.000Z): HTTP 500: HTTP 500
callback c2 task.size: dead
"""


def test_everything_is_told_in_lines(server: ScriptedServer) -> None:
    server.on("GET", "/v1/tasks/u1/explain", Reply(body=EXPLAINED))

    done = CliRunner().invoke(main, ["--socket", server.path, "explain", "u1"])

    assert (done.exit_code, done.stdout) == (0, TOLD)


def test_the_whole_answer_is_printed_as_json(server: ScriptedServer) -> None:
    server.on("GET", "/v1/tasks/u1/explain", Reply(body=EXPLAINED))

    assert json.loads(CliRunner().invoke(main, ["--socket", server.path, "explain", "u1", "--json"]).stdout) == EXPLAINED


def test_what_a_daemon_does_not_tell_is_left_out(server: ScriptedServer) -> None:
    ended = {"state": "failed", "action": "backup", "id": "d", "mode": "run", "error": {"kind": "lost", "message": "gone"}}
    more = {"waiting_for": "nothing", "zone": {"zone": "z", "state": "not configured"}, "next_poll_at": "soon"}
    server.on("GET", "/v1/tasks/u1/explain", Reply(body=ended | more))

    assert CliRunner().invoke(main, ["--socket", server.path, "explain", "u1"]).stdout.splitlines() == [
        "backup of d in zone z (run): failed",
        "error: gone (lost)",
        "waits for: nothing",
        "next poll: soon",
        "zone z: not configured",
    ]


def test_an_unknown_task_is_refused(server: ScriptedServer) -> None:
    server.on("GET", "/v1/tasks/u1/explain", problem(404, "not-found", "cannot show task u1"))

    done = CliRunner().invoke(main, ["--socket", server.path, "explain", "u1"])

    assert (done.exit_code, "next: `taskctl list`" in done.stderr) == (7, True)
