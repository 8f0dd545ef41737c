"""The shipped units: put in place by the command, accepted by systemd's own tools, and doing what they say."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from task_client import Client
from task_daemon import main
from tests.conftest import missing
from tests.waiting import eventually

SYSTEM = ("etc/systemd/system/task-daemon.service", "etc/systemd/system/task-daemon.socket")
EXPOSURE = 20  # tenths, of what `systemd-analyze security` calls the exposure level


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        missing(f"{name} (Debian package systemd)")
    assert found is not None
    return found


def install(*arguments: str) -> int:
    return main.main(["install-units", *arguments])


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A root with the units of the machine's systemd."""
    assert install("--root", str(tmp_path)) == 0
    return tmp_path


def test_units_name_the_command_of_this_installation(installed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = Path(sys.executable).with_name("task-daemon")
    assert f"ExecStart={command} " in (installed / SYSTEM[0]).read_text()
    assert install("--root", str(installed)) == 0
    assert capsys.readouterr().out.count("as it should be: ") == 4


def test_changed_unit_is_left_alone_until_it_is_forced(installed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unit = installed / SYSTEM[0]
    unit.write_text("# mine\n")
    (installed / SYSTEM[1]).unlink()
    assert install("--root", str(installed)) == 1
    assert f"cannot install {unit}: a different one is there" in capsys.readouterr().err
    assert unit.read_text() == "# mine\n"
    assert not (installed / SYSTEM[1]).exists(), "half of it was installed"
    assert install("--root", str(installed), "--force") == 0
    assert "Type=notify" in unit.read_text()


def test_mistake_is_told_when_nothing_can_be_written_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "etc").write_text("a file")
    assert install("--root", str(tmp_path)) == 1
    assert "cannot install " in capsys.readouterr().err


def test_units_of_a_user_go_where_the_systemd_of_the_user_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "/home/me/.config")
    assert install("--user", "--root", str(tmp_path)) == 0
    folder = tmp_path / "home/me/.config/systemd/user"
    assert sorted(file.name for file in folder.iterdir()) == ["task-daemon.service", "task-daemon.socket"]


@pytest.mark.parametrize("user", [False, True])
def test_systemd_finds_nothing_to_say_against_the_units(user: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    analyze = tool("systemd-analyze")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/u")
    assert install("--root", str(tmp_path), *(["--user"] if user else [])) == 0
    units = [str(file) for file in tmp_path.rglob("task-daemon.s*") if file.suffix in (".service", ".socket")]
    assert len(units) == 2
    # an unknown key is only a line on stderr
    said = subprocess.run([analyze, "verify", "--man=no", *units], capture_output=True, text=True, timeout=60, check=False)
    assert (said.returncode, said.stdout, said.stderr) == (0, "", "")


def test_service_is_exposed_to_little(installed: Path) -> None:
    command = [tool("systemd-analyze"), "security", "--offline=true", f"--threshold={EXPOSURE}", "--no-pager"]
    said = subprocess.run([*command, str(installed / SYSTEM[0])], capture_output=True, text=True, timeout=60, check=False)
    assert said.returncode == 0, said.stdout


@pytest.fixture
def activated(short_path: Path) -> Iterator[Path]:
    """The path of a socket that systemd listens on; the first connection starts a daemon."""
    path = short_path / "s"
    activate = tool("systemd-socket-activate")
    (short_path / "c.toml").write_text("")
    own = ["-m", "task_daemon", f"--workspace={short_path / 'w'}", f"--config-file={short_path / 'c.toml'}"]
    with (short_path / "log").open("wb") as log:
        process = subprocess.Popen([activate, "-l", str(path), "--fdname=api", sys.executable, *own], stderr=log)
    try:
        eventually("systemd listens", path.exists)
        yield path
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        process.wait(20)


def test_daemon_serves_the_socket_that_systemd_listens_on_and_leaves_it_there(activated: Path) -> None:
    with Client(str(activated)) as client:
        assert client.ping()
        assert client.info()["version"]
    workspace = activated.parent / "w"
    pid = int((workspace / "lock").read_text().split()[0])
    assert not (workspace / "task_daemon.socket").exists(), "it made a socket of its own beside the one it was given"
    os.kill(pid, signal.SIGTERM)
    eventually("the daemon has stopped", lambda: not Path(f"/proc/{pid}").exists() or "Z" in _state(pid))
    assert activated.exists(), "the socket belongs to systemd"


def _state(pid: int) -> str:
    with suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return "Z"


def test_daemon_refuses_more_than_one_socket(short_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(short_path / "a"))
        one.listen()
        code = (
            "import os, sys\n"
            f"os.dup2({one.fileno()}, 3); os.dup2({one.fileno()}, 4)\n"
            "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='2')\n"
            "from task_daemon.main import main\n"
            f"sys.exit(main(['--workspace={short_path / 'w'}']))\n"
        )
        said = subprocess.run(
            [sys.executable, "-c", code], pass_fds=[one.fileno()], capture_output=True, text=True, timeout=60, check=False
        )
    assert said.returncode == 2
    assert "cannot serve on 2 sockets" in said.stderr
