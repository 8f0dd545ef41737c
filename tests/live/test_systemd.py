"""The shipped units under a real systemd, booted as PID 1 of a container whose disk is this machine's with a layer on top."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import missing

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
WITHIN = 110.0  # seconds
TASKCTL = Path(sys.executable).with_name("taskctl")
SOCKET = "/run/task-daemon/task_daemon.socket"


@pytest.fixture
def boot(short_path: Path) -> Callable[[str], str]:
    """Boots, runs a script as root, powers off; what the script printed."""
    if os.geteuid() != 0:
        pytest.skip("only root may boot a machine")
    if shutil.which("systemd-nspawn") is None:
        missing("systemd-nspawn")

    def run(script: str) -> str:
        needed = {str(ROOT), sys.prefix, sys.base_prefix, str(Path(sys.executable).resolve().parents[1])} - {"/usr"}
        alone = ["unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child", "--mount-proc"]
        command = [*alone, "bash", str(HERE / "boot.sh"), str(short_path), *sorted(needed)]
        done = subprocess.run(command, input=script, capture_output=True, text=True, timeout=WITHIN)
        if "systemd boots here" not in done.stdout:
            pytest.skip(f"no machine can be booted here: {(done.stderr or done.stdout).strip()[-300:]}")
        return done.stdout

    return run


@pytest.mark.live
def test_units_do_what_they_say(boot: Callable[[str], str]) -> None:
    program = TASKCTL.with_name("task-daemon")
    words = f"echo systemd boots here\nPROGRAM={program} TASKCTL={TASKCTL} SOCKET={SOCKET}\n"
    printed = boot(words + (HERE / "units.sh").read_text())
    steps = dict(part.partition("\n")[::2] for part in printed.split("== ")[1:])

    assert steps["activation"] == "inactive\npong\nactive\ntask-daemon\n"
    assert steps["callers"] == "0 ready\n4321 ready\n", "PrivateUsers would hide who calls"
    assert steps["journal"] == '"PRIORITY":"6"\n'
    assert steps["killed"] == "watched running\n"
    assert steps["stopped"] == "inactive\nactive\nwatched running\n"
    assert steps["hung"] == "pong\nwatched running\n"
    assert steps["mistaken"].endswith("\nExecMainStatus=2\nNRestarts=0\ncannot start task-daemon.service\n")
    assert steps["demanded"] == f"{SOCKET}\ntask-daemon\nwatched running\n"
    assert '"check.json", "config.toml", "host.json", "journal.txt"' in steps["bundle"]
    assert int(steps["bundle"].split()[-1]) > 1
    assert "end" in steps
    assert "never:" not in printed
