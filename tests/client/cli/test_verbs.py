"""taskctl in a pipe: what each verb sends, prints and answers as exit code."""

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner, Result

from task_client.cli import VERBS, commands, main
from tests.client.scripted import Reply, ScriptedServer, problem, task

SHOWN = 'id: c\ntries: [{"status": 500}]'

Taskctl = Callable[..., Result]


@pytest.fixture
def taskctl(socket_path: str) -> Taskctl:
    def run(*arguments: str) -> Result:
        found = CliRunner().invoke(main, ["--socket", socket_path, *arguments])
        assert found.exception is None or isinstance(found.exception, SystemExit), found.exception
        return found

    return run


def test_every_verb_has_help_and_takes_json_after_it(taskctl: Taskctl) -> None:
    found = list(commands())

    assert {names[0] for names, _ in found} == set(VERBS)
    for names, _ in found:
        shown = taskctl(*names, "--help")
        assert shown.exit_code == 0
        assert "--json" in shown.output or names == ("completion",), names
        assert f"main {' '.join(names)}" in shown.output


def test_help_tells_the_exit_codes(taskctl: Taskctl) -> None:
    shown = taskctl("--help").output

    for line in ("1  a task failed", "3  the daemon cannot be reached", "4  a task is lost", "7  the daemon refused"):
        assert line in shown


def test_register_prints_the_uid(server: ScriptedServer, taskctl: Taskctl) -> None:
    server.on("POST", "/v1/tasks", Reply(202, task()))

    done = taskctl("register", "disk-1", "backup", "vm1", "--job", "j", "--label", "rack=a=7", "--timeout", "60", "--key", "k")

    assert (done.exit_code, done.stdout) == (0, "u1\n")
    assert server.asked[0].headers["idempotency-key"] == "k"
    assert server.asked[0].body == {
        "id": "disk-1", "action": "backup", "zone": "vm1", "job": "j", "labels": {"rack": "a=7"}, "timeout": 60.0,
    }  # fmt: skip


def test_run_reads_parameters_as_json_or_text(server: ScriptedServer, taskctl: Taskctl) -> None:
    server.on("POST", "/v1/tasks", Reply(202, task()))

    arguments = ["--params", '{"a": 1, "b": 2}', "--param", "b=[3]", "--param", "target=/x/y", "--param", "name=7up"]
    taskctl("run", "disk-1", "backup", "vm1", *arguments)

    assert server.asked[0].body["params"] == {"a": 1, "b": [3], "target": "/x/y", "name": "7up"}


@pytest.mark.parametrize("wrong", [["--param", "novalue"], ["--params", "{"], ["--params", "[1]"]])
def test_run_is_wrong_usage_when_parameters_cannot_be_read(taskctl: Taskctl, wrong: list[str]) -> None:
    assert taskctl("run", "disk-1", "backup", "vm1", *wrong).exit_code == 2


@pytest.mark.parametrize(("state", "code"), [("succeeded", 0), ("failed", 1), ("lost", 4), ("cancelled", 6)])
def test_wait_tells_the_end_by_its_exit_code(server: ScriptedServer, taskctl: Taskctl, state: str, code: int) -> None:
    end = task(state=state, revision=3, error={"kind": "backend", "message": "why"} if code == 1 else None)
    server.on("GET", "/v1/tasks/u1", Reply(body=task()), Reply(body=task()), Reply(body=end))

    done = taskctl("wait", "u1")

    assert done.exit_code == code
    assert done.stdout == (f"u1 {state}: why (backend)\n" if code == 1 else f"u1 {state}\n")


def test_watch_prints_changes_that_are_worth_a_line(server: ScriptedServer, taskctl: Taskctl) -> None:
    moving = {"percent": 40.0, "rate": 12_340_000.0, "unit": "bytes", "eta_seconds": 300.0}
    hardly, stalled = moving | {"percent": 40.4}, {"percent": 40.4, "rate": 3.0, "unit": "files"}
    steps = [task(revision=2, progress=moving), task(revision=3, progress=hardly)]
    steps += [task(revision=4, progress=stalled, flags=["stalled"]), task(state="succeeded", revision=5)]
    server.on("GET", "/v1/tasks/u1", *(Reply(body=each) for each in [task(), task(), *steps]))

    done = taskctl("watch", "u1")

    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "u1 running",
        "u1 running 40.0 %, 12.3 MB/s, 5 min left",
        "u1 running 40.4 %, 3 files/s [stalled]",
        "u1 succeeded",
    ]


def two_tasks(server: ScriptedServer, one: str, other: str) -> None:
    """u1 and u2 are open; u2 ends first as `other`, then u1 as `one`."""
    server.on("GET", "/v1/tasks", Reply(body={"tasks": [task("u1"), task("u2")], "cursor": 9, "next_page_token": None}))
    ends = [[{"seq": 10, "uid": "u2", "type": f"task.{other}"}], [{"seq": 11, "uid": "u1", "type": f"task.{one}"}]]
    server.on("GET", "/v1/events", *(Reply(body={"events": end, "cursor": 10}) for end in ends))
    for uid, state in (("u1", one), ("u2", other)):
        server.on("GET", f"/v1/tasks/{uid}", *[Reply(body=task(uid))] * 2, Reply(body=task(uid, state, revision=2)))


@pytest.mark.parametrize(
    ("one", "other", "code"),
    [("succeeded", "succeeded", 0), ("succeeded", "failed", 1), ("lost", "failed", 1), ("cancelled", "lost", 4)],
)
def test_wait_for_several_tells_the_worst_end(server: ScriptedServer, taskctl: Taskctl, one: str, other: str, code: int) -> None:
    two_tasks(server, one, other)

    done = taskctl("wait", "u1", "u2")

    assert (done.exit_code, done.stdout.splitlines()) == (code, [f"u2 {other}", f"u1 {one}"])


def test_wait_for_any_ends_with_the_first(server: ScriptedServer, taskctl: Taskctl) -> None:
    two_tasks(server, "succeeded", "cancelled")

    done = taskctl("wait", "u1", "u2", "--any")

    assert (done.exit_code, done.stdout) == (6, "u2 cancelled\n")


def test_wait_takes_the_open_tasks_that_filters_fit(server: ScriptedServer, taskctl: Taskctl) -> None:
    two_tasks(server, "succeeded", "succeeded")
    for uid in ("u1", "u2"):
        server.on("GET", f"/v1/tasks/{uid}", Reply(body=task(uid)), Reply(body=task(uid, "succeeded", revision=2)))

    done = taskctl("wait", "--zone", "vm1", "--label", "rack=a", "--format", "{uid}={state}")

    assert (done.exit_code, done.stdout) == (0, "u2=succeeded\nu1=succeeded\n")
    asked = {pair for pair in server.asked[0].query if pair[0] != "page_size"}
    assert asked == {("label", "rack:a"), ("done", "false"), ("zone", "vm1")}


def test_wait_is_done_when_nothing_is_open(server: ScriptedServer, taskctl: Taskctl) -> None:
    server.on("GET", "/v1/tasks", Reply(body={"tasks": [], "next_page_token": None}))

    done = taskctl("wait", "--open")

    assert (done.exit_code, done.stdout) == (0, "")
    assert "no such task" in done.stderr


@pytest.mark.parametrize("wrong", [["wait"], ["wait", "u1", "--zone", "vm1"], ["watch", "u1", "--label", "a=b"]])
def test_which_tasks_are_meant_must_be_clear(server: ScriptedServer, taskctl: Taskctl, wrong: list[str]) -> None:
    server.on("GET", "/v1/tasks/u1", Reply(body=task()))

    assert taskctl(*wrong).exit_code == 2


def test_watch_prints_every_change_as_json(server: ScriptedServer, taskctl: Taskctl) -> None:
    end = task(state="succeeded", revision=2)
    server.on("GET", "/v1/tasks/u1", Reply(body=task()), Reply(body=task()), Reply(body=end))

    assert [json.loads(line) for line in taskctl("watch", "u1", "--json").stdout.splitlines()] == [task(), end]


def test_wait_prints_one_object_when_json_is_asked_for(server: ScriptedServer, taskctl: Taskctl) -> None:
    server.on("GET", "/v1/tasks/u1", Reply(body=task()), Reply(body=task(state="lost")))

    done = taskctl("wait", "u1", "--json")

    assert (done.exit_code, json.loads(done.stdout)) == (4, task(state="lost"))


def test_wait_ends_with_5_when_time_is_up(server: ScriptedServer, taskctl: Taskctl) -> None:
    server.on("GET", "/v1/tasks/u1", Reply(body=task()))

    done = taskctl("wait", "u1", "--timeout", "0.05")

    assert done.exit_code == 5
    assert "the work goes on" in done.stderr


def test_wait_does_not_wait_when_there_is_no_daemon(taskctl: Taskctl) -> None:
    done = taskctl("wait", "u1")

    assert done.exit_code == 3
    assert "taskctl start" in done.stderr
    assert done.stdout == ""


def test_register_follows_when_asked_to_wait(server: ScriptedServer, taskctl: Taskctl) -> None:
    server.on("POST", "/v1/tasks", Reply(202, task()))
    server.on("GET", "/v1/tasks/u1", Reply(body=task(state="cancelled")))

    assert taskctl("register", "disk-1", "backup", "vm1", "--wait").exit_code == 6


def test_f13_list_prints_rows_for_other_programs(server: ScriptedServer, taskctl: Taskctl) -> None:
    odd = task("u2", id="a\tb\x1b[31m", progress={"percent": 12.34})
    server.on("GET", "/v1/tasks", Reply(body={"tasks": [odd, task("u1")], "next_page_token": None}))

    done = taskctl("list", "--state", "running", "--open", "--label", "rack=a7", "--id", "x")

    first, second = (line.split("\t") for line in done.stdout.splitlines())
    assert first[:6] == ["u2", "running", "12.3", "backup", "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}[31m", "vm1"]
    assert second[2] == "-"
    asked = [pair for pair in server.asked[0].query if pair[0] != "page_size"]
    assert asked == [("label", "rack:a7"), ("state", "running"), ("done", "false"), ("id", "x")]


def test_list_stops_at_its_limit(server: ScriptedServer, taskctl: Taskctl) -> None:
    server.on("GET", "/v1/tasks", Reply(body={"tasks": [task("u2"), task("u1")], "next_page_token": "more"}))

    done = taskctl("list", "--limit", "3", "--json")

    assert [json.loads(line)["uid"] for line in done.stdout.splitlines()] == ["u2", "u1", "u2"]


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("uid,percent,labels.a/b.c", "u1\t12.3\tx\nu2\t-\t-\n"),
        (r"{uid}\t{progress.percent} % {{no}}", "u1\t12.3 % {-}\nu2\t- % {-}\n"),
        ("{error.message}{params}", "--\n--\n"),
    ],
)
def test_format_names_columns_or_fills_a_template(server: ScriptedServer, taskctl: Taskctl, text: str, printed: str) -> None:
    first = task("u1", progress={"percent": 12.3}, labels={"a/b.c": "x"}, no=None)
    server.on("GET", "/v1/tasks", Reply(body={"tasks": [first, task("u2", no=None)], "next_page_token": None}))

    done = taskctl("list", "--format", text)

    assert (done.exit_code, done.stdout, done.stderr) == (0, printed, "")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--format", "uid,sttae"], "no member 'sttae'; accepted: uid, id, action"),
        (["--format", "{sttae}"], "no member 'sttae'"),
        (["--format", "uid,,id"], "neither columns"),
        (["--format", "{}"], "no {member}"),
        (["--format", "uid", "--json"], "exclude each other"),
    ],
)
def test_format_that_cannot_be_followed_is_wrong_usage(
    server: ScriptedServer, taskctl: Taskctl, wrong: list[str], said: str
) -> None:
    server.on("GET", "/v1/tasks", Reply(body={"tasks": [task()], "next_page_token": None}))

    done = taskctl("list", *wrong)

    assert done.exit_code == 2
    assert said in done.stderr


@pytest.mark.parametrize("arguments", [["--json", "show", "u1"], ["show", "--json", "u1"], ["show", "u1", "--json"]])
def test_f13_show_prints_json_wherever_the_flag_stands(server: ScriptedServer, taskctl: Taskctl, arguments: list[str]) -> None:
    server.on("GET", "/v1/tasks/u1", Reply(body=task(x_new=1)))

    assert json.loads(taskctl(*arguments).stdout) == task(x_new=1)


def test_show_prints_members_that_hold_something(server: ScriptedServer, taskctl: Taskctl) -> None:
    server.on("GET", "/v1/tasks/u1", Reply(body=task()))

    shown = taskctl("show", "u1").stdout

    assert "state: running" in shown
    assert "error:" not in shown


def test_refusal_ends_with_7_and_says_what_to_do_next(server: ScriptedServer, taskctl: Taskctl) -> None:
    members = [{"pointer": "/stop_tracking", "message": "must be true for tracked work"}]
    server.on("POST", "/v1/tasks/u1/cancel", problem(409, "not-cancellable", "only tracked", errors=members))

    done = taskctl("cancel", "u1", "--json")

    assert (done.exit_code, done.stdout) == (7, "")
    assert "only tracked (not-cancellable)" in done.stderr
    assert "/stop_tracking: must be true" in done.stderr
    assert "taskctl cancel --stop-tracking UID" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "method", "path", "answer", "printed"),
    [
        (["cancel", "u1", "--stop-tracking"], "POST", "/v1/tasks/u1/cancel", task(state="cancelled"), "u1 cancelled"),
        (["poll", "u1"], "POST", "/v1/tasks/u1/poll", None, ""),
        (["resolve", "u1", "failed", "--reason", "r"], "POST", "/v1/tasks/u1/resolve", task(state="failed"), "u1 failed"),
        (["events"], "GET", "/v1/events", {"events": []}, ""),
        (["events", "u1"], "GET", "/v1/tasks/u1/events", {"events": []}, ""),
        (["callbacks"], "GET", "/v1/callbacks", {"callbacks": [{"id": "c", "state": "dead"}]}, "c\tdead\t-\t-\t-\t-\t-"),
        (["callbacks", "list", "u1"], "GET", "/v1/tasks/u1/callbacks", {"callbacks": []}, ""),
        (["callbacks", "show", "c"], "GET", "/v1/callbacks/c", {"id": "c", "tries": [{"status": 500}]}, SHOWN),
        (["callbacks", "replay", "c"], "POST", "/v1/callbacks/c/replay", {"id": "c"}, "c\t-\t-\t-\t-\t-\t-"),
        (["callbacks", "ack", "c"], "POST", "/v1/callbacks/c/ack", {"id": "c"}, "c\t-\t-\t-\t-\t-\t-"),
        (["zones", "pause", "z"], "POST", "/v1/zones/z/pause", {"zone": "z", "state": "paused"}, "z\tpaused\t-\t-\t-\t-\t-"),
        (["zones", "resume", "z"], "POST", "/v1/zones/z/resume", {"zone": "z"}, "z\t-\t-\t-\t-\t-\t-"),
        (["zones", "list"], "GET", "/v1/zones", {"zones": []}, ""),
        (["zones"], "GET", "/v1/zones", {"zones": [{"zone": "vm1", "state": "ok"}]}, "vm1\tok\t-\t-\t-\t-\t-"),
        (["actions"], "GET", "/v1/actions", {"actions": [{"action": "backup", "params": {"a": 1}}]}, "backup\t-\t-\t-\t-"),
        (["info"], "GET", "/v1/info", {"version": "1"}, "version: 1"),
        (["ping"], "GET", "/ping", "pong", "pong"),
    ],
)
def test_verbs_ask_and_print(
    server: ScriptedServer, taskctl: Taskctl, arguments: list[str], method: str, path: str, answer: Any, printed: str
) -> None:
    server.on(method, path, Reply(200, answer))

    done = taskctl(*arguments)

    assert (done.exit_code, done.stdout.strip("\n"), done.stderr) == (0, printed, "")
    assert (server.asked[0].method, server.asked[0].path) == (method, path)


def test_events_are_printed_with_their_numbers(server: ScriptedServer, taskctl: Taskctl) -> None:
    event = {"seq": 3, "uid": "u1", "type": "task.failed", "time": "2026-01-02T03:04:05.000Z", "detail": {"a": 1}}
    server.on("GET", "/v1/events", Reply(body={"events": [event], "cursor": 3}), Reply(body={"events": [], "cursor": 3}))

    assert taskctl("events").stdout == '3\t2026-01-02T03:04:05.000Z\tu1\ttask.failed\t{"a": 1}\n'


def test_stop_ends_with_3_when_nobody_is_there(taskctl: Taskctl) -> None:
    assert taskctl("stop").exit_code == 3


@pytest.mark.parametrize(
    "arguments", [["fly"], ["show"], ["list", "--state", "odd"], ["callbacks", "--state", "odd"], ["zones", "x"]]
)
def test_wrong_usage_ends_with_2(taskctl: Taskctl, arguments: list[str]) -> None:
    assert taskctl(*arguments).exit_code == 2


def test_program_reads_its_socket_from_the_environment(server: ScriptedServer) -> None:
    server.on("GET", "/ping", Reply(body="pong"))
    program = [sys.executable, "-W", "error", "-c", "from task_client.cli import main; main()", "ping", "--json"]

    done = subprocess.run(program, env={"TASK_DAEMON_SOCKET": server.path}, capture_output=True, text=True, timeout=60)

    assert (done.returncode, done.stdout, done.stderr) == (0, '"pong"\n', "")


def test_bar_and_table_are_shown_when_stdout_is_a_terminal(server: ScriptedServer) -> None:
    """A real terminal (pty): rich draws a heading in `list`, and `wait` ends with the same line and code."""
    import pty

    server.on("GET", "/v1/tasks", Reply(body={"tasks": [task()], "next_page_token": None}))
    server.on("GET", "/v1/tasks/u1", Reply(body=task(progress={"percent": 10.0})), Reply(body=task(state="failed")))
    program = [sys.executable, "-c", "from task_client.cli import main; main()", "--socket", server.path]

    def on_terminal(*arguments: str) -> tuple[int, str]:
        ours, theirs = pty.openpty()
        with open(theirs, "wb", closefd=True) as terminal:
            code = subprocess.run([*program, *arguments], stdout=terminal, stderr=terminal, timeout=60).returncode
        with open(ours, "rb", closefd=True) as screen:
            return code, screen.read1(65536).decode()

    code, shown = on_terminal("list")
    assert code == 0
    assert "state" in shown
    assert "running" in shown

    code, shown = on_terminal("wait", "u1")
    assert code == 1
    assert "u1 failed" in shown
