"""Starting the daemon on demand and stopping it again.

Who serves a workspace is decided by the daemon's own lock in it, never by a ping: a daemon that finds the lock taken
exits with code 3 at once. So any number of processes may call `init_daemon_process` at the same moment.
"""

import fcntl
import logging
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from task_client.errors import DaemonNotStarted, DaemonUnreachable
from task_client.paths import default_socket, default_workspace
from task_client.units import look_there, start_unit
from task_client.unix import open_unix

log = logging.getLogger("task_client.daemon")

WORKSPACE_TAKEN = 3  # exit code of a daemon that found another one serving its workspace
LOOK_EVERY = 0.02  # seconds
LOG_NAME = "task-daemon.log"
LOG_SHOWN = 4096  # bytes of the log's end that an error shows at most
PROBE_TIMEOUT = 30.0

_children: dict[str, subprocess.Popen[bytes]] = {}
"""Daemons this process started, by workspace. A fork's child has them too, but Popen signals only children of its own."""


def is_service_on(unix_socket: str | Path) -> bool:
    """False if the path does not exist or connecting is refused, True if a connect succeeds or the backlog is full.

    The probe socket is always closed. Raises DaemonUnreachable when that cannot be told (no permission).
    """
    try:
        open_unix(os.fspath(unix_socket), PROBE_TIMEOUT).close()
    except DaemonUnreachable as error:
        if error.busy:
            return True
        if error.retryable:
            return False
        raise
    return True


def init_daemon_process(
    *,
    workspace: str | Path | None = None,
    unix_socket: str | Path | None = None,
    config_file: str | Path | None = None,
    wait: float = 10.0,
) -> str:
    """Make sure a daemon serves the workspace; answers its socket once it accepts connections.

    Where a systemd unit `task-daemon.service` is installed (the user's or the machine's) and no argument contradicts it,
    systemd is asked to start it. Else the daemon is started as a child in its own session, without our descriptors, its
    output in `<workspace>/task-daemon.log`; it outlives this process. Raises DaemonNotStarted after `wait` seconds, or as
    soon as the daemon has died or systemd could not start its unit. One that is merely slow is left alone: it holds the lock
    and may be ready later.
    """
    home = default_workspace() if workspace is None else Path(workspace).absolute()
    path = default_socket(workspace) if unix_socket is None else os.path.abspath(unix_socket)
    if is_service_on(path):
        log.info("task-daemon is on already at %s", path)
        return path
    end = time.monotonic() + wait
    if config_file is None:
        started = start_unit(None if workspace is None else home, None if unix_socket is None else path, end)
        if started is not None:
            return _await_unit(*started, end)
    if unix_socket is None:
        path = default_socket(home)
    _make_workspace(home)
    with _one_starter(home, path, end) as ours:
        if ours and not is_service_on(path):
            child = _start(home, path, config_file)
            _await(home, path, child, end, wait)
    if not is_service_on(path):
        raise DaemonNotStarted(f"cannot start task-daemon in {home}: it does not accept connections within {wait:g} s")
    return path


def stop_daemon_process(wait: float = 5.0) -> None:
    """Send SIGTERM to the daemons this process started, if any, and wait up to `wait` seconds for each to end.

    One that systemd was asked to start is systemd's to stop.
    """
    for home, child in list(_children.items()):
        del _children[home]
        child.terminate()
        try:
            log.info("task-daemon of %s, pid %d, has ended with code %d", home, child.pid, child.wait(wait))
        except subprocess.TimeoutExpired:
            log.warning("task-daemon of %s, pid %d, got SIGTERM and has not ended after %g s", home, child.pid, wait)


def stop_daemon(unix_socket: str | Path, wait: float = 10.0) -> int:
    """Send SIGTERM to whoever serves the socket, wait for its end; answers its pid.

    Raises DaemonUnreachable, PermissionError, TimeoutError.
    """
    with open_unix(os.fspath(unix_socket), PROBE_TIMEOUT) as connection:
        pid: int = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        if pid <= 1:  # a socket opened by the service manager carries its pid (measured: 1, 0, 0)
            raise PermissionError("the socket belongs to the service manager; stop the service there")
        process = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(process, signal.SIGTERM)
        if not select.select([process], [], [], wait)[0]:
            raise TimeoutError(f"task-daemon, pid {pid}, got SIGTERM and has not ended after {wait:g} s")
    finally:
        os.close(process)
    return pid


def _make_workspace(home: Path) -> None:
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        home.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise DaemonNotStarted(
            f"cannot make workspace {home}: {error.strerror}; name another one, or its root in TASK_DAEMON_WORKSPACE_ROOT"
        ) from error


@contextmanager
def _one_starter(home: Path, path: str, end: float) -> Iterator[bool]:
    """Among callers at the same moment one starts the daemon and the others wait for it: True for the one.

    Only thrift (twenty daemons starting at once take ten times as long as one): what makes it safe is the daemon's lock.
    """
    with open(home / "start.lock", "ab") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= end or is_service_on(path):
                    yield False
                    return
                time.sleep(LOOK_EVERY)
            else:
                yield True
                return


def _start(home: Path, path: str, config_file: str | Path | None) -> subprocess.Popen[bytes]:
    command = [*daemon_program(), f"--workspace={home}", f"--unix-socket={path}"]
    if config_file is not None:
        command.append(f"--config-file={os.path.abspath(config_file)}")
    descriptor = os.open(home / LOG_NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    with open(descriptor, "ab") as output:
        child = subprocess.Popen(  # noqa: S603 - our own program, no shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            close_fds=True,
            start_new_session=True,
            cwd="/",
        )
    log.info("task-daemon started in %s, pid %d", home, child.pid)
    _children[str(home)] = child
    return child


def daemon_program() -> list[str]:
    """The command beside the interpreter: with `-m`, the caller's directory could put another module in its place."""
    command = Path(sys.executable).with_name("task-daemon")
    return [str(command)] if os.access(command, os.X_OK) else [sys.executable, "-m", "task_daemon"]


def _await_unit(manager: str, path: str, end: float) -> str:
    while not is_service_on(path):
        if time.monotonic() >= end:
            raise DaemonNotStarted(
                f"cannot reach task-daemon at {path}: its unit is started and does not accept connections; {look_there(manager)}"
            )
        time.sleep(LOOK_EVERY)
    return path


def _await(home: Path, path: str, child: subprocess.Popen[bytes], end: float, wait: float) -> None:
    """Until the socket accepts; a child that lost the race for the workspace leaves it to the winner to be waited for."""
    while not is_service_on(path):
        code = child.poll()
        if code is not None:
            _children.pop(str(home), None)
            if code != WORKSPACE_TAKEN:
                raise DaemonNotStarted(
                    f"cannot start task-daemon in {home}: it ended with code {code}; the end of {home / LOG_NAME}:",
                    code,
                    _end_of_log(home),
                )
        if time.monotonic() >= end:
            state = f"pid {child.pid} is still starting and was left alone" if code is None else "another one has the workspace"
            raise DaemonNotStarted(
                f"cannot reach task-daemon at {path}: not accepting connections within {wait:g} s ({state}); "
                f"the end of {home / LOG_NAME}:",
                None,
                _end_of_log(home),
            )
        time.sleep(LOOK_EVERY)
    if child.poll() is not None:
        _children.pop(str(home), None)


def _end_of_log(home: Path) -> str:
    try:
        with open(home / LOG_NAME, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_SHOWN))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-20:])
    except OSError as error:
        return f"(the log cannot be read: {error.strerror})"
