"""Who serves a workspace: the holder of its lock file, decided by the kernel and never by a ping (I8)."""

import contextlib
import errno
import fcntl
import os
import pwd
import stat
from pathlib import Path

from task_daemon.core.errors import StoreError, WorkspaceTaken


class WorkspaceLock:
    """The lock on a workspace; the kernel lets go of it when the process ends, however it ends."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    def release(self) -> None:
        """Let go. The file stays: removing it would let two daemons hold two different files of one name."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def take(workspace: Path) -> WorkspaceLock:
    """Take `<workspace>/lock`, making the workspace (mode 0700) if it is missing.

    Raises WorkspaceTaken naming the process that holds it, StoreError when the workspace cannot be used at all, or when
    somebody else could write to it.
    """
    path = workspace / "lock"
    try:
        workspace.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_rights(workspace)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(
            f"cannot use workspace {workspace}: {error.strerror}; a directory this user may write is needed"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = _pid(descriptor)
        os.close(descriptor)
        by = f"process {pid}" if pid else "another daemon"
        raise WorkspaceTaken(
            f"cannot take workspace {workspace}: {by} serves it; stop that or use another workspace", pid
        ) from None
    os.ftruncate(descriptor, 0)
    try:
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except OSError as error:  # the lock holds all the same; only its holder stays unnamed
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
    return WorkspaceLock(path, descriptor)


def _check_rights(workspace: Path) -> None:
    """Who can write to the workspace can forge tasks, and has commands run. Raises StoreError."""
    found = workspace.stat()
    mine = os.geteuid()
    if found.st_uid not in (0, mine):
        raise StoreError(
            f"cannot use workspace {workspace}: it belongs to {_user(found.st_uid)}, and this daemon runs as {_user(mine)}; "
            f"start it as that user, run chown -R {mine} {workspace}, or use another workspace"
        )
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o022:
        raise StoreError(
            f"cannot use workspace {workspace}: its mode {mode:04o} lets others write to it; run chmod 700 {workspace}, "
            "or use a directory that is nobody else's"
        )


def _user(uid: int) -> str:
    with contextlib.suppress(KeyError):
        return f"user {pwd.getpwuid(uid).pw_name} ({uid})"
    return f"user {uid}"


def _pid(descriptor: int) -> int:
    text = os.pread(descriptor, 32, 0).strip()
    return int(text) if text.isdigit() else 0
