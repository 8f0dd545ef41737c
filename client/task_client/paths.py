"""Where a daemon started on demand lives."""

import os
from pathlib import Path

ROOT = "TASK_DAEMON_WORKSPACE_ROOT"


def default_workspace() -> Path:
    """`<root>/task_daemon`; the root is the environment's, else /var/lib for root, else the user's state directory."""
    root = os.environ.get(ROOT)
    if not root:
        state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
        root = "/var/lib" if os.geteuid() == 0 else state
    return Path(root).absolute() / "task_daemon"


def default_socket(workspace: str | Path | None = None) -> str:
    return str((default_workspace() if workspace is None else Path(workspace).absolute()) / "task_daemon.socket")
