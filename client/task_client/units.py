"""The systemd unit that serves in place of a daemon of our own, where one is installed.

A unit that cannot be found or asked about is no unit, and a manager that does not let the caller start it is none either
(unless the unit's socket is open to the caller): then a daemon is started on demand. A unit whose start *failed* is an error:
a second daemon, with another store, would hide from everybody that the one they rely on is down.
"""

import logging
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from task_client.errors import DaemonNotStarted
from task_client.paths import unit_sockets

log = logging.getLogger("task_client.daemon")

SERVICE = "task-daemon.service"
BOOTED = Path("/run/systemd/system")  # sd_booted(3): it is there while systemd runs
ANSWERED_IN = 5.0  # seconds for a question about the unit
NOT_PERMITTED = 4  # exit code of systemctl
NOT_ASKED = "authentication required"  # what it says with exit code 1 when only a password would help


def start_unit(workspace: Path | None, unix_socket: str | None, end: float) -> tuple[str, str] | None:
    """Start the unit that serves these places (None: any); answers its manager and its socket, None if there is no such unit.

    Returns when systemd says that it is started. Raises DaemonNotStarted when it says why not, or not before `end` (of
    `time.monotonic`).
    """
    program = shutil.which("systemctl")
    if program is None or not BOOTED.exists():
        return None
    for manager, path in unit_sockets().items():
        if unix_socket in (None, path) and _serves([program, f"--{manager}"], workspace, path):
            if _start([program, f"--{manager}"], manager, path, end):
                return manager, path
            log.info("systemd does not let this user start the %s unit %s", manager, SERVICE)
    return None


@dataclass(frozen=True, slots=True)
class Unit:
    """What a unit's daemon was told: `workspace` and `config_file` are None where its command line does not say."""

    manager: str  # `user` or `system`
    socket: str
    workspace: Path | None
    config_file: str | None


def unit_at(unix_socket: str) -> Unit | None:
    """The unit that listens there, as systemd knows it; whether it runs or not."""
    program = shutil.which("systemctl")
    managers = [manager for manager, path in unit_sockets().items() if path == unix_socket]
    if program is None or not managers:
        return None
    words = _words([program, f"--{managers[0]}"])
    given = dict(word.split("=", 1) for word in words if word.startswith("--") and "=" in word)
    if given.get("--unix-socket") != unix_socket:
        return None
    workspace = given.get("--workspace")
    return Unit(managers[0], unix_socket, Path(workspace) if workspace else None, given.get("--config-file"))


def installed() -> Unit | None:
    """The unit that would serve a caller who names no socket."""
    return next(filter(None, map(unit_at, unit_sockets().values())), None)


def look_there(manager: str) -> str:
    """What to do next, for the end of an error."""
    return f"see `systemctl --{manager} status {SERVICE}` and `journalctl --{manager} --unit={SERVICE}`"


def _serves(systemctl: list[str], workspace: Path | None, path: str) -> bool:
    places = [f"--unix-socket={path}"] + ([] if workspace is None else [f"--workspace={workspace}"])
    return set(places) <= set(_words(systemctl))


def _words(systemctl: list[str]) -> list[str]:
    """Those of the unit's command line, among others; none if there is no such unit."""
    said = _ask([*systemctl, "--no-pager", "show", "--property=LoadState", "--property=ExecStart", SERVICE], ANSWERED_IN)
    if said is None or said.returncode != 0:
        return []
    words = said.stdout.split()
    return words if "LoadState=loaded" in words else []


def _start(systemctl: list[str], manager: str, path: str, end: float) -> bool:
    """False if the caller may not."""
    said = _ask([*systemctl, "--no-ask-password", "start", SERVICE], max(0.1, end - time.monotonic()))
    if said is None:
        raise DaemonNotStarted(f"cannot reach task-daemon at {path}: systemd is still starting {SERVICE}; {look_there(manager)}")
    if said.returncode == 0:
        log.info("systemd's %s unit %s is started", manager, SERVICE)
        return True
    refused = said.returncode == NOT_PERMITTED or NOT_ASKED in said.stderr.lower()
    if refused and not os.access(path, os.W_OK):
        return False
    why = "this user may not, and nobody listens on its socket" if refused else "systemd could not"
    raise DaemonNotStarted(f"cannot start {SERVICE}: {why}; {look_there(manager)}", None, said.stderr.strip())


def _ask(command: list[str], seconds: float) -> "subprocess.CompletedProcess[str] | None":
    """None if it does not answer in time; its code 127 if it cannot be run."""
    try:
        return subprocess.run(  # noqa: S603 - a fixed command, no shell
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, "LC_ALL": "C"},
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None
    except OSError as error:
        return subprocess.CompletedProcess(command, 127, "", str(error))
