"""Where a daemon lives that nobody named: one of systemd's, or one started on demand."""

import os
from functools import lru_cache
from pathlib import Path

ROOT = "TASK_DAEMON_WORKSPACE_ROOT"
SOCKET_NAME = "task_daemon.socket"
SYSTEM_SOCKET = f"/run/task-daemon/{SOCKET_NAME}"


def default_workspace() -> Path:
    """`<root>/task_daemon`; the root is the environment's, else /var/lib for root, else the user's state directory."""
    return Path(_workspace()).absolute()


def default_socket(workspace: str | Path | None = None) -> str:
    """The workspace's. Without one: that of the user's or the machine's systemd unit, where it is there and may be written
    to, else the default workspace's."""
    if workspace is None:
        for path in unit_sockets().values():
            if os.access(path, os.W_OK):
                return path
        workspace = _workspace()
    folder = os.fspath(workspace)
    return _socket_in(folder if folder.startswith("/") else os.path.join(os.getcwd(), folder))


def unit_sockets() -> dict[str, str]:
    """Where the shipped units listen, by systemd's name for the manager: `user` (if the caller has one), then `system`.

    Empty when the environment names a root: then no unit is meant.
    """
    if os.environ.get(ROOT):
        return {}
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    own = {"user": f"{runtime}/task-daemon/{SOCKET_NAME}"} if runtime else {}
    return own | {"system": SYSTEM_SOCKET}


def _workspace() -> str:
    root = os.environ.get(ROOT)
    if not root and os.geteuid() == 0:
        root = "/var/lib"
    return f"{root or os.environ.get('XDG_STATE_HOME') or os.path.expanduser('~/.local/state')}/task_daemon"


@lru_cache(maxsize=16)  # every `register_task()` asks
def _socket_in(folder: str) -> str:
    return str(Path(folder) / SOCKET_NAME)
