"""Who serves a workspace: the holder of its lock file, decided by the kernel and never by a ping (I8)."""

import fcntl
import os
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

    Raises WorkspaceTaken naming the process that holds it, StoreError when the workspace cannot be used at all.
    """
    path = workspace / "lock"
    try:
        workspace.mkdir(mode=0o700, parents=True, exist_ok=True)
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
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return WorkspaceLock(path, descriptor)


def _pid(descriptor: int) -> int:
    text = os.pread(descriptor, 32, 0).strip()
    return int(text) if text.isdigit() else 0
