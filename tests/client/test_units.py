"""Starting on demand where a systemd unit is installed. `systemctl` is a program of ours that does what systemd would: it
starts the real daemon, once. The daemon that is started without systemd is the stand-in of test_daemon.py."""

import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from task_client import Client, daemon, paths, units
from task_client.daemon import init_daemon_process, is_service_on, stop_daemon, stop_daemon_process
from task_client.errors import DaemonNotStarted, DaemonUnreachable
from task_client.paths import default_socket

STAND_IN = Path(__file__).with_name("stand_in.py")
SYSTEMCTL = """#!{python}
import fcntl, os, pathlib, signal, socket, subprocess, sys
home = pathlib.Path({home!r})
words = sys.argv[1:]
with open(home / "asked", "a") as asked:
    asked.write(" ".join(words) + chr(10))
manager = words[0].lstrip("-")
plan = dict(line.split(maxsplit=1) for line in (home / "plan").read_text().splitlines()).get(manager, "absent")
folder = home / manager / "task-daemon"
places = ["--workspace=" + str(home / manager / "w"), "--unix-socket=" + str(folder / "task_daemon.socket")]

def accepts():
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(folder / "task_daemon.socket")) == 0

if "show" in words:
    print("LoadState=" + ("not-found" if plan == "absent" else "loaded"))
    print("ExecStart={{ path=/usr/bin/task-daemon ; argv[]=/usr/bin/task-daemon", *places, "; ignore_errors=no }}")
elif plan == "fails":
    sys.exit("Job for task-daemon.service failed because the control process exited with error code.")
elif plan == "refuses":
    sys.exit("Failed to start task-daemon.service: Interactive authentication required.")
elif plan == "hangs":
    signal.pause()
elif plan == "serves":
    folder.mkdir(parents=True, exist_ok=True)
    with open(home / (manager + ".job"), "ab") as job:
        fcntl.flock(job, fcntl.LOCK_EX)
        if not accepts():
            with open(home / "daemon.log", "ab") as log:
                command = [sys.executable, "-m", "task_daemon", *places]
                child = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
            (home / "started").open("a").write(manager + chr(10))
            while not accepts() and child.poll() is None:
                signal.sigtimedwait([], 0.02)
"""


class Systemd:
    def __init__(self, home: Path) -> None:
        self.home = home

    def plan(self, **managers: str) -> None:
        (self.home / "plan").write_text("".join(f"{manager} {plan}\n" for manager, plan in managers.items()))

    def asked(self) -> list[str]:
        file = self.home / "asked"
        return file.read_text().splitlines() if file.exists() else []

    def started(self) -> list[str]:
        file = self.home / "started"
        return file.read_text().split() if file.exists() else []

    def socket(self, manager: str) -> str:
        return str(self.home / manager / "task-daemon" / "task_daemon.socket")

    @property
    def own(self) -> str:
        """The socket of a daemon that was started without systemd."""
        return str(self.home / "state" / "task_daemon" / "task_daemon.socket")


def test_units_listen_where_clients_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither can read the other: the client is installed without the units, and a unit is no program."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    monkeypatch.delenv("TASK_DAEMON_WORKSPACE_ROOT", raising=False)
    folder = Path(__file__).parents[2] / "systemd"
    listening = {
        manager: re.search(r"(?m)^ExecStart=.* --unix-socket=(\S+)", (folder / where / "task-daemon.service").read_text())
        for manager, where in (("user", "user"), ("system", ""))
    }

    assert {m: found[1].replace("%t", "/run/user/7") for m, found in listening.items() if found} == paths.unit_sockets()
    for where, path in (("user", "%t/task-daemon"), ("", os.path.dirname(paths.SYSTEM_SOCKET))):
        assert f"ListenStream={path}/{paths.SOCKET_NAME}\n" in (folder / where / "task-daemon.socket").read_text()


@pytest.fixture
def systemd(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Systemd]:
    manager = Systemd(short_path)
    program = short_path / "bin" / "systemctl"
    program.parent.mkdir()
    program.write_text(SYSTEMCTL.format(python=sys.executable, home=str(short_path)))
    program.chmod(0o755)
    manager.plan()
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_path / "user"))
    monkeypatch.setenv("XDG_STATE_HOME", str(short_path / "state"))
    monkeypatch.delenv("TASK_DAEMON_WORKSPACE_ROOT", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)  # not root: whose default workspace is the machine's
    monkeypatch.setattr(paths, "SYSTEM_SOCKET", manager.socket("system"))
    monkeypatch.setattr(units, "BOOTED", short_path)
    monkeypatch.setattr(daemon, "daemon_program", lambda: [sys.executable, str(STAND_IN)])
    yield manager
    stop_daemon_process()
    for name in ("user", "system"):
        with suppress(DaemonUnreachable):
            stop_daemon(manager.socket(name))


def test_systemd_starts_the_daemon_where_the_users_unit_is_installed(systemd: Systemd) -> None:
    systemd.plan(user="serves", system="serves")

    path = init_daemon_process(wait=60)

    assert path == systemd.socket("user") == default_socket(), "others must find it, too"
    assert systemd.asked()[-1] == "--user --no-ask-password start task-daemon.service"
    assert systemd.started() == ["user"]
    assert not Path(systemd.own).exists()
    with Client(path) as client:
        assert client.ping()
    assert init_daemon_process() == path
    assert len(systemd.asked()) == 2, "it was on already"
    stop_daemon_process()
    assert is_service_on(path), "what systemd started is systemd's to stop"


def test_machines_unit_is_started_where_the_user_has_none(systemd: Systemd) -> None:
    systemd.plan(system="serves")

    assert init_daemon_process(wait=60) == systemd.socket("system") == default_socket()
    assert systemd.started() == ["system"]


def test_twenty_starters_at_once_get_the_one_daemon_of_the_unit(systemd: Systemd) -> None:
    systemd.plan(user="serves")
    told: list[str] = []
    starters = [threading.Thread(target=lambda: told.append(init_daemon_process(wait=90))) for _ in range(20)]
    for starter in starters:
        starter.start()
    for starter in starters:
        starter.join(100)

    assert told == [systemd.socket("user")] * 20
    assert systemd.started() == ["user"]


def test_arguments_that_say_what_the_unit_says_mean_the_unit(systemd: Systemd) -> None:
    systemd.plan(user="serves")

    path = init_daemon_process(workspace=systemd.home / "user" / "w", unix_socket=systemd.socket("user"), wait=60)

    assert path == systemd.socket("user")
    assert systemd.started() == ["user"]


@pytest.mark.parametrize("argument", ["workspace", "unix_socket", "config_file"])
def test_arguments_that_contradict_the_unit_start_another_daemon(systemd: Systemd, argument: str) -> None:
    systemd.plan(user="serves", system="serves")
    (systemd.home / "other").mkdir()

    path = init_daemon_process(**{argument: systemd.home / "other" / "x"})  # type: ignore[arg-type]

    assert is_service_on(path)
    assert systemd.started() == []


def test_root_in_the_environment_means_no_unit(systemd: Systemd, monkeypatch: pytest.MonkeyPatch) -> None:
    systemd.plan(user="serves")
    monkeypatch.setenv("TASK_DAEMON_WORKSPACE_ROOT", str(systemd.home / "root"))

    assert init_daemon_process() == str(systemd.home / "root" / "task_daemon" / "task_daemon.socket")
    assert systemd.asked() == []


def test_daemon_is_started_without_systemd_where_no_unit_is_installed(systemd: Systemd) -> None:
    assert init_daemon_process() == systemd.own == default_socket()
    assert [line.split()[0] for line in systemd.asked()] == ["--user", "--system"], "no unit was asked for, or one was started"


@pytest.mark.parametrize("without", ["systemd", "systemctl", "answer"])
def test_daemon_is_started_without_systemd_where_systemd_is_not_there(
    systemd: Systemd, monkeypatch: pytest.MonkeyPatch, without: str
) -> None:
    systemd.plan(user="serves")
    program = systemd.home / "bin" / "systemctl"
    if without == "systemd":
        monkeypatch.setattr(units, "BOOTED", systemd.home / "nothing")
    elif without == "systemctl":
        program.unlink()
        monkeypatch.setenv("PATH", str(program.parent))
    else:
        program.write_text("#!/bin/sh\necho Failed to connect to bus >&2; exit 1\n")

    assert init_daemon_process() == systemd.own
    assert systemd.started() == []


def test_error_says_where_to_look_when_the_unit_fails(systemd: Systemd) -> None:
    """A second daemon with another store would hide that the one everybody relies on is down."""
    systemd.plan(user="fails")

    with pytest.raises(DaemonNotStarted, match=r"systemctl --user status task-daemon\.service") as caught:
        init_daemon_process()

    assert "journalctl --user --unit=task-daemon.service" in str(caught.value)
    assert "control process exited" in caught.value.log
    assert not is_service_on(systemd.own)


def test_error_says_that_the_unit_is_still_starting_when_the_time_is_up(systemd: Systemd) -> None:
    systemd.plan(user="hangs")

    with pytest.raises(DaemonNotStarted, match=r"still starting task-daemon\.service"):
        init_daemon_process(wait=1.0)

    assert not is_service_on(systemd.own)


def test_user_who_may_not_start_the_machines_unit_gets_a_daemon_of_their_own(systemd: Systemd) -> None:
    systemd.plan(system="refuses")

    assert init_daemon_process() == systemd.own
    assert systemd.asked()[-1] == "--system --no-ask-password start task-daemon.service"


def test_user_of_the_machines_daemon_is_told_that_it_is_down(systemd: Systemd) -> None:
    """Its socket is there and open to them: it is the one they mean, and others find it, too."""
    systemd.plan(system="refuses")
    left_behind = Path(systemd.socket("system"))
    left_behind.parent.mkdir(parents=True)
    left_behind.touch()

    with pytest.raises(DaemonNotStarted, match="this user may not, and nobody listens on its socket"):
        init_daemon_process()
