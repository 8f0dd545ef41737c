"""The command `task-daemon` in a process of its own: what it says, how it exits, and that stopping it harms nothing."""

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from task_daemon import __version__, main
from tests.daemons import Daemon
from tests.receivers import Answer, Receiver
from tests.waiting import eventually

STOPPED_WITHIN = 5.0  # seconds: one is promised on an idle machine; whoever waits for a poll or a receiver takes ten
SIMULATED = """
[daemon]
poll_interval = 0.1
[zones.sim]
backend = "simulated"
"""
KEYSTONE = '[region]\nregion="R"\nauth_uri="http://127.0.0.1:1"\nadmin_user="u"\nadmin_tenant_name="t"\n'


def unused(home: Path, config: str) -> list[str]:
    """Arguments that name a configuration; nothing is to be made in `home`."""
    file = home / "task-daemon.toml"
    file.write_text(config)
    return [f"--config-file={file}", f"--workspace={home / 'w'}"]


def timed_stop(daemon: Daemon) -> int:
    """SIGTERM; the exit code, after a look at the clock (I11)."""
    began = time.monotonic()
    code = daemon.stop()
    took = time.monotonic() - began
    print(f"stopped in {took * 1000:.0f} ms")
    assert took < STOPPED_WITHIN, daemon.said()
    return code


# --------------------------------------------------------------------------- flags and configuration


def test_every_mistake_is_listed_and_exit_is_2_when_the_configuration_is_wrong(short_path: Path) -> None:
    daemon = Daemon(short_path, '[daemon]\nworkers = 0\n[zones.t]\nbackend = "tape"\n[colour]\n', ("--log-level=loud",))

    assert daemon.run() == 2
    lines = daemon.said().splitlines()
    assert len(lines) == 4
    assert all(line.startswith("task-daemon: ") for line in lines)
    mistakes = ("[daemon] workers = 0: expected", "[daemon] log_level = 'loud'", "backend = 'tape'", "[colour]: unknown table")
    for mistake in mistakes:
        assert mistake in daemon.said()
    assert not daemon.workspace.exists()


@pytest.mark.parametrize(
    ("config", "mistake"),
    [
        ('[callbacks.keys]\nmain = "/nowhere/key"', "cannot read key main from /nowhere/key: No such file"),
        ('[zones.s]\nbackend = "simulated"\nscenario = "/nowhere/s.toml"', "cannot read scenario '/nowhere/s.toml' of zone s"),
        ('[callbacks]\nallow = ["10.0.0.0/99"]', "10.0.0.0/99"),
        (KEYSTONE + 'admin_password_file = "/nowhere/pw"', "[region] admin_password_file: cannot read /nowhere/pw"),
        (
            '[region]\nservice_url="http://127.0.0.1:1"\n[[region.routes]]\naction="*"\noutcome="over"\nmethod="PUT"\npath="/x"',
            "its outcome is 'over'",
        ),
        ('[region]\nservice_url="http://127.0.0.1:1"\n[[region.routes]]\naction="*"', "[[region.routes]] number 1: "),
    ],
)
def test_check_config_finds_what_a_start_would_stumble_over(
    config: str, mistake: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main([*unused(tmp_path, config), "--check-config"]) == 2
    assert mistake in capsys.readouterr().err


def test_check_config_is_silent_and_makes_nothing_when_there_is_no_mistake(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main([*unused(tmp_path, SIMULATED), "--check-config"]) == 0
    assert capsys.readouterr() == ("", "")
    assert not (tmp_path / "w").exists()


def test_show_config_prints_what_is_in_force_with_secrets_hidden(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    region = '[region]\nservice_url = "http://127.0.0.1:1"\nadmin_password = "hunter2"\n'

    assert main.main([*unused(tmp_path, SIMULATED + region), "--show-config", "--log-level=debug"]) == 0
    shown = capsys.readouterr().out
    for line in ('log_level = "debug"', f'unix_socket = "{tmp_path}/w/task_daemon.socket"', "[zones.sim]", "poll_interval = 0.1"):
        assert line in shown
    assert "hunter2" not in shown


def test_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main.main(["--version"])
    assert (caught.value.code, capsys.readouterr().out) == (0, f"task-daemon {__version__}\n")


@pytest.mark.parametrize("between", ["-", "_"])
def test_options_of_the_old_service_are_taken_with_dashes_and_underscores(
    between: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {
        "workspace": str(tmp_path / "w"),
        "unix_socket": str(tmp_path / "s"),
        "region": "R1",
        "port": "8080",
        "auth_uri": "http://127.0.0.1:5000",
        "admin_user": "u",
        "admin_password": "hunter2",
        "admin_tenant_name": "t",
        "enable_mebs": "true",
        "mebs_src_dir": "/src",
        "mebs_bin_dir": "/bin",
        "mebs_log_config": "/etc/mebs/log.conf",
        "mebs_log_dir": "/log",
        "mebs_manager_config": "m",
        "mebs_redis_config": "r",
        "mebs_sql_connection": "s",
    }
    flags = [f"--{name.replace('_', between)}={value}" for name, value in given.items()]
    file = tmp_path / "old.conf"
    file.write_text("")

    assert main.main([*flags, f"--config{between}file={file}", "--show-config"]) == 0
    shown = capsys.readouterr().out
    for name, value in given.items():
        expected = {"enable_mebs": "true", "admin_password": '"(hidden)"'}.get(name, f'"{value}"')
        assert f"{name} = {expected}\n" in shown


@pytest.mark.parametrize("flag", [["--enable-mebs"], ["--enable_mebs=yes"], ["--enable-mebs", "1"]])
def test_old_switch_is_taken_with_and_without_a_value(
    flag: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    region = '[region]\nservice_url = "http://127.0.0.1:1"\n'

    assert main.main([*unused(tmp_path, region), *flag, "--check-config"]) == 2
    assert "mebs_src_dir: is required with enable_mebs" in capsys.readouterr().err


# --------------------------------------------------------------------------- the workspace and the socket


def test_i8_second_daemon_leaves_with_3_and_the_first_is_undisturbed_when_a_workspace_is_served(short_path: Path) -> None:
    with Daemon(short_path, SIMULATED) as first, first.client() as client:
        task = client.register("d1", "backup", "sim")
        second = Daemon(short_path, SIMULATED)
        began = time.monotonic()
        assert second.run() == 3
        assert time.monotonic() - began < 15.0, "it waited for something"
        assert f"process {first.pid} serves it" in second.said()
        third = Daemon(short_path, SIMULATED, ("--unix-socket=/nowhere/s",))
        assert third.run() == 3, "another socket does not make it another workspace"
        assert client.info()["pid"] == first.pid
        assert client.get(task.uid).id == "d1"
        assert first.stop() == 0


def test_i8_one_of_many_serves_when_all_are_started_at_once(short_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        daemons = [Daemon(short_path, SIMULATED) for _ in range(5)]
        for daemon in daemons:
            stack.push(daemon)
            daemon.start(ready=False)
        eventually("four have given up", lambda: sum(daemon.ended is not None for daemon in daemons) == 4)
        assert sorted(daemon.ended or 0 for daemon in daemons) == [0, 3, 3, 3, 3]
        (owner,) = [daemon for daemon in daemons if daemon.ended is None]
        owner.await_ready()
        with owner.client() as client:
            assert client.info()["pid"] == owner.pid


def test_socket_of_a_killed_daemon_is_replaced(short_path: Path) -> None:
    with Daemon(short_path) as daemon:
        daemon.kill()
        stale = os.stat(daemon.socket).st_ino
        daemon.start()
        assert os.stat(daemon.socket).st_ino != stale
        with daemon.client() as client:
            assert client.ping()
        assert daemon.stop() == 0
        assert not os.path.exists(daemon.socket)


def test_modes_let_nobody_in_who_was_not_meant(short_path: Path) -> None:
    with Daemon(short_path, '[daemon]\nsocket_mode = "0600"\n') as daemon:
        assert stat.S_IMODE(os.stat(daemon.socket).st_mode) == 0o600
        assert stat.S_IMODE(daemon.workspace.stat().st_mode) == 0o700
        for path in daemon.workspace.rglob("*"):
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_socket_can_be_used_by_its_group_when_nothing_else_is_said(short_path: Path) -> None:
    with Daemon(short_path) as daemon:
        assert stat.S_IMODE(os.stat(daemon.socket).st_mode) == 0o660


def test_exit_is_2_when_the_workspace_is_no_directory(short_path: Path) -> None:
    daemon = Daemon(short_path)
    daemon.workspace.write_text("")

    assert daemon.run() == 2
    assert f"cannot use workspace {daemon.workspace}" in daemon.said()


def test_exit_is_2_and_the_file_stays_when_something_else_lies_where_the_socket_should(short_path: Path) -> None:
    daemon = Daemon(short_path)
    Path(daemon.socket).write_text("precious")

    assert daemon.run() == 2
    assert f"cannot listen on {daemon.socket}: there is something that is no socket; move it away" in daemon.said()
    assert Path(daemon.socket).read_text() == "precious"


def test_exit_is_1_and_the_cause_is_logged_when_something_unforeseen_happens(short_path: Path) -> None:
    """Here: what was taken in cannot be renamed, because of a directory that nobody expects."""
    daemon = Daemon(short_path)
    (daemon.workspace / "data.keep.imported" / "x").mkdir(parents=True)
    (daemon.workspace / "data.keep").write_text("[]")

    assert daemon.run() == 1
    assert "critical main: the daemon cannot go on" in daemon.said()
    assert "Is a directory" in daemon.said()


def test_exit_is_2_and_the_store_untouched_when_it_is_of_a_newer_version(short_path: Path) -> None:
    with Daemon(short_path) as daemon:
        assert daemon.stop() == 0
    store = daemon.workspace / "store.db"
    connection = sqlite3.connect(store)
    connection.execute("PRAGMA user_version = 99").fetchall()
    connection.close()
    before = store.read_bytes()

    assert daemon.run() == 2, "what exits with 2 is not started again and again"
    assert "it has version 99 and this daemon knows up to" in daemon.said()
    assert "install the newer daemon again, or use another workspace" in daemon.said()
    assert store.read_bytes() == before
    assert list(daemon.workspace.glob("store.db.damaged*")) == []


# --------------------------------------------------------------------------- signals


@pytest.fixture
def leftovers() -> Iterator[list[int]]:
    """Processes that a test has started through the daemon; ended after it, whatever happened."""
    pids: list[int] = []
    yield pids
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def born(pid: int) -> str:
    """Start time of a process, which tells it from a later one with the same number."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_daemon_stops_with_0_when_it_is_asked_to(number: signal.Signals, short_path: Path) -> None:
    with Daemon(short_path) as daemon:
        daemon.signal(number)
        assert daemon.wait() == 0
        assert "stopped: everything is on disk" in daemon.said()


STARTED = """
import asyncio, gc, sys
from task_daemon import main

class Stopped:
    failed = False
    async def start(self, stop): stop.set()
    async def stop(self): print(gc.get_freeze_count() > 10_000, gc.get_threshold()[0], sys.getswitchinterval())

assert asyncio.run(main._run(Stopped())) == main.STOPPED
"""


def test_neither_looks_for_garbage_nor_a_thread_that_computes_keep_requests_waiting() -> None:
    """A look through all that is loaded would stop everything for 20 ms now and then, a poll of a large zone for 80."""
    done = subprocess.run([sys.executable, "-c", STARTED], check=True, capture_output=True, text=True, timeout=60)

    assert done.stdout.split() == ["True", str(main.GARBAGE), str(main.TURN)]


def test_daemon_serves_on_when_its_terminal_is_closed(short_path: Path) -> None:
    with Daemon(short_path) as daemon, daemon.client() as client:
        daemon.signal(signal.SIGHUP)
        assert client.ping()
        assert daemon.stop() == 0


@pytest.mark.parametrize("_turn", range(4))  # what comes first is a matter of luck
def test_i11_waiting_request_is_answered_when_the_daemon_stops(_turn: int, short_path: Path) -> None:
    with Daemon(short_path, SIMULATED) as daemon, daemon.client() as client, socket.socket(socket.AF_UNIX) as waiting:
        task = client.register("d1", "backup", "sim", timeout=3600)
        waiting.settimeout(20)
        waiting.connect(daemon.socket)
        waiting.sendall(f"GET /v1/tasks/{task.uid}?wait=60 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert client.ping()  # accepted after the other: that one waits by now
        assert timed_stop(daemon) == 0
        answer = http.client.HTTPResponse(waiting)
        answer.begin()
        body = json.loads(answer.read())
        answer.close()
    assert (answer.status, body["uid"], body["done"]) == (200, task.uid, False)


def test_i9_i11_command_goes_on_and_is_found_again_when_the_daemon_stops(short_path: Path, leftovers: list[int]) -> None:
    os.mkfifo(short_path / "go")
    script = "echo $$ > pid.new && mv pid.new pid && read line < go && exit 0"
    params = {"argv": ["sh", "-c", script], "cwd": str(short_path)}
    with Daemon(short_path, "[zones.local]\npoll_interval = 0.2\n") as daemon:
        with daemon.client() as client:
            task = client.register("job-1", "command", "local", params=params)
            eventually("the command runs", (short_path / "pid").exists)
            eventually("the command is seen", lambda: client.get(task.uid).state == "running")
        pid = int((short_path / "pid").read_text())
        leftovers.append(pid)
        before = born(pid)
        assert timed_stop(daemon) == 0
        assert born(pid) == before, "the work was touched"
        daemon.start()
        with daemon.client() as client:
            assert client.get(task.uid).state == "running"
            (short_path / "pid").unlink()
            (short_path / "go").write_text("on\n")
            assert client.wait(task.uid, 20).state == "succeeded"
    assert not (short_path / "pid").exists(), "the command was run twice"


def test_i11_daemon_stops_in_time_when_a_zone_hangs(short_path: Path) -> None:
    hung = SIMULATED + "answer_after = 61\npoll_timeout = 60\n"
    with Daemon(short_path, hung) as daemon:
        with daemon.client() as client:
            task = client.register("d1", "backup", "sim")

            def asked() -> bool:
                (zone,) = [zone for zone in client.zones() if zone["zone"] == "sim"]
                return zone["last_poll_at"] is not None

            eventually("a poll is out", asked)
        assert timed_stop(daemon) == 0
        daemon.start()
        with daemon.client() as client:
            assert client.get(task.uid).state == "queued"


def test_i11_daemon_stops_in_time_when_a_file_hangs(short_path: Path) -> None:
    """Reading a token hangs, as on a dead network file system; a name that is being resolved would be the same."""
    os.mkfifo(short_path / "token")
    region = f'[region]\nservice_url = "http://127.0.0.1:1"\ntoken_file = "{short_path}/token"\n'
    config = SIMULATED + 'scenario = [{ id = "*", finish_after = 0.1 }]\n' + region
    with Daemon(short_path, config) as daemon:
        with daemon.client() as client:
            task = client.register("d1", "delete_backup", "sim")
            assert client.wait(task.uid, 20).state == "succeeded"
        assert timed_stop(daemon) == 0
        shutil.move(short_path / "token", short_path / "away")
        daemon.start()
        with daemon.client() as client:
            assert [each.state for each in client.callbacks(task.uid)] == ["pending"]


def test_i11_progress_is_on_disk_when_the_daemon_has_stopped(short_path: Path) -> None:
    scenario = 'scenario = [{ id = "*", finish_after = 20 }]\n'
    with Daemon(short_path, SIMULATED + scenario) as daemon:
        with daemon.client() as client:
            tasks = client.register_many([{"id": f"d{n}", "action": "backup", "zone": "sim"} for n in range(200)])
            eventually("there is progress", lambda: (client.get(tasks[-1].uid).progress.percent or 0) > 1)
            seen = {task.uid: task.progress.percent or 0 for task in client.list(page_size=500)}
        assert timed_stop(daemon) == 0
    silent = "unreachable = [[0.001, 3600]]\n"  # so whatever is shown was on disk
    with Daemon(short_path, SIMULATED + silent) as daemon, daemon.client() as client:
        found = {task.uid: task for task in client.list(page_size=500)}
    assert set(found) == set(seen)
    assert {task.state for task in found.values()} == {"running"}
    assert [uid for uid, task in found.items() if (task.progress.percent or 0) < seen[uid]] == []


def test_i11_daemon_stops_in_time_when_everybody_around_it_hangs(short_path: Path) -> None:
    """A zone that does not answer, a receiver that says nothing, a client that does not read its answer."""
    hung = '[zones.slow]\nbackend = "simulated"\nanswer_after = 61\npoll_timeout = 60\n'
    config = SIMULATED + 'scenario = [{ id = "*", finish_after = 0.1 }]\n' + hung
    many = [{"id": f"d{n}", "action": "backup", "zone": "slow", "labels": {"x": "y" * 250}} for n in range(500)]
    with (
        Receiver(then=Answer(never=True)) as receiver,
        Daemon(short_path, config) as daemon,
        daemon.client() as client,
        socket.socket(socket.AF_UNIX) as deaf,
    ):
        client.register_many(many)
        client.register("told", "backup", "sim", callback=receiver.url)
        receiver.wait(1)
        deaf.connect(daemon.socket)
        deaf.sendall(b"GET /v1/tasks?page_size=500 HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
        deaf.settimeout(20)
        assert deaf.recv(1), "its answer is under way"
        assert timed_stop(daemon) == 0
        daemon.start()
        assert len(list(client.list(page_size=500))) == 501
        assert [each.state for each in client.callbacks()] == ["pending"]
