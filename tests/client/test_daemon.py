"""Starting and stopping, with a stand-in for the daemon; test_end_to_end.py does the same with the real one."""

import os
import socket
import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from task_client import daemon
from task_client.daemon import init_daemon_process, is_service_on, stop_daemon, stop_daemon_process
from task_client.errors import DaemonNotStarted, DaemonUnreachable
from task_client.paths import default_socket, default_workspace
from tests.waiting import eventually

STAND_IN = Path(__file__).with_name("stand_in.py")


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(daemon, "daemon_program", lambda: [sys.executable, str(STAND_IN)])
    yield
    stop_daemon_process()


def log_of(workspace: Path) -> str:
    return (workspace / "task-daemon.log").read_text()


def test_service_is_off_when_the_path_does_not_exist(socket_path: str) -> None:
    assert not is_service_on(socket_path)


def test_service_is_off_when_connecting_is_refused(socket_path: str) -> None:
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(socket_path)

    assert not is_service_on(socket_path)


def test_service_is_on_when_a_connect_succeeds_and_the_probe_is_closed(socket_path: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(socket_path)
        listener.listen(1)

        assert is_service_on(socket_path)

        probe, _ = listener.accept()
        with probe:
            probe.settimeout(5)
            assert probe.recv(1) == b""


def test_service_is_on_when_it_is_too_busy_to_accept(socket_path: str) -> None:
    """A full backlog belongs to a living daemon; another one must not be started."""
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(socket_path)
        listener.listen(0)
        first.connect(socket_path)

        assert is_service_on(socket_path)


def test_daemon_is_started_with_what_it_needs_and_nothing_of_ours(short_path: Path) -> None:
    workspace = short_path / "new" / "w"
    read, write = os.pipe()
    os.set_inheritable(write, True)
    try:
        path = init_daemon_process(workspace=workspace)
    finally:
        os.close(read)
        os.close(write)

    assert path == str(workspace / "task_daemon.socket")
    assert is_service_on(path)
    assert stat.S_IMODE(workspace.stat().st_mode) == 0o700
    said = log_of(workspace)
    assert "['unix-socket', 'workspace']" in said
    assert f", {write}" not in said.split("inherited: ")[1].splitlines()[0]
    assert "session: True cwd: /" in said


def test_configuration_is_handed_on_as_an_absolute_path(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(short_path)

    init_daemon_process(workspace="w", unix_socket="own.sock", config_file="task-daemon.toml")

    assert is_service_on(short_path / "own.sock")
    assert "['config-file', 'unix-socket', 'workspace']" in log_of(short_path / "w")


def test_nothing_is_started_when_the_service_is_on(short_path: Path) -> None:
    first = init_daemon_process(workspace=short_path)

    assert init_daemon_process(workspace=short_path) == first
    assert log_of(short_path).count("stand-in:") == 1


def test_stop_ends_the_child_this_process_started(short_path: Path) -> None:
    path = init_daemon_process(workspace=short_path)

    stop_daemon_process()

    assert not is_service_on(path)
    stop_daemon_process()  # nothing left to stop: no error


def test_stop_leaves_the_daemon_alone_when_a_parent_process_started_it(short_path: Path) -> None:
    path = init_daemon_process(workspace=short_path)

    child = os.fork()
    if child == 0:
        try:
            stop_daemon_process()
        finally:
            os._exit(0)
    os.waitpid(child, 0)

    assert is_service_on(path)


def test_stop_by_socket_ends_whoever_serves_it(short_path: Path) -> None:
    path = init_daemon_process(workspace=short_path)

    pid = stop_daemon(path)

    assert not is_service_on(path)
    assert pid != os.getpid()
    with pytest.raises(DaemonUnreachable):
        stop_daemon(path)


def test_error_shows_the_end_of_the_log_when_the_daemon_dies(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAND_IN", "die")

    with pytest.raises(DaemonNotStarted, match=r"ended with code 2; .*\n[^$]*no table \[zones\.x\]") as caught:
        init_daemon_process(workspace=short_path)

    assert caught.value.exit_code == 2


def test_starter_takes_the_winners_daemon_when_its_own_lost_the_race(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loser ends with code 3 before the winner listens: no error, and no second start."""
    monkeypatch.setenv("STAND_IN", "lose")
    path = str(short_path / "task_daemon.socket")
    told: list[str] = []
    starter = threading.Thread(target=lambda: told.append(init_daemon_process(workspace=short_path, wait=20)))
    starter.start()
    eventually("the loser has run", lambda: (short_path / "task-daemon.log").exists() and "lose" in log_of(short_path))
    with socket.socket(socket.AF_UNIX) as winner:
        winner.bind(path)
        winner.listen(8)
        starter.join(20)

    assert told == [path]
    assert log_of(short_path).count("stand-in:") == 1


def test_error_says_that_another_has_the_workspace_when_it_never_listens(
    short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN", "lose")

    with pytest.raises(DaemonNotStarted, match=r"within 0\.5 s \(another one has the workspace\)"):
        init_daemon_process(workspace=short_path, wait=0.5)


def test_error_names_the_workspace_when_it_cannot_be_made(short_path: Path) -> None:
    (short_path / "file").touch()

    with pytest.raises(DaemonNotStarted, match=r"cannot make workspace .*file/w"):
        init_daemon_process(workspace=short_path / "file" / "w", unix_socket=short_path / "s.sock")


def test_f8_starters_at_the_same_moment_start_one_daemon(short_path: Path) -> None:
    told: list[str] = []
    starters = [
        threading.Thread(target=lambda: told.append(init_daemon_process(workspace=short_path, wait=30))) for _ in range(8)
    ]
    for starter in starters:
        starter.start()
    for starter in starters:
        starter.join(40)

    assert told == [str(short_path / "task_daemon.socket")] * 8
    assert log_of(short_path).count("session: True") == 1


def test_workspace_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASK_DAEMON_WORKSPACE_ROOT", "/srv/x")

    assert default_workspace() == Path("/srv/x/task_daemon")
    assert default_socket() == "/srv/x/task_daemon/task_daemon.socket"


@pytest.mark.parametrize(("uid", "state", "expected"), [(0, "/s", "/var/lib"), (7, "/s", "/s"), (7, "", "/h/.local/state")])
def test_workspace_depends_on_who_asks(monkeypatch: pytest.MonkeyPatch, uid: int, state: str, expected: str) -> None:
    monkeypatch.delenv("TASK_DAEMON_WORKSPACE_ROOT", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", state)
    monkeypatch.setenv("HOME", "/h")
    monkeypatch.setattr(os, "geteuid", lambda: uid)

    assert default_workspace() == Path(expected) / "task_daemon"
