"""What somebody who helps needs to see, without secrets: asked of the daemon, or found without it when it is down."""

import io
import json
import os
import platform
import re
import shutil
import subprocess
import tarfile
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from task_client.client import Client
from task_client.daemon import LOG_NAME, daemon_program
from task_client.errors import AnswerUnknown, ClientError, DaemonUnreachable
from task_client.types import Callback, Task
from task_client.units import SERVICE, Unit

TASKS, CALLBACKS = 500, 200  # at most so many, the newest
LOG_TAIL = 256 * 1024  # bytes
JOURNAL_LINES = 2000
CHECKED_FOR = 20.0  # seconds
PROGRAM_TIMEOUT = 10.0
HIDDEN = "(hidden)"
CREDENTIALS = re.compile(r"(?<=://)[^\s\"']*@")  # of URLs: user:password@
QUERY = re.compile(r"(://[^\s\"'?]*)\?[^\s\"']*")  # a receiver may want a token there
TASK_MEMBERS = (
    "uid", "id", "action", "zone", "mode", "state", "flags", "error", "revision", "owner", "callbacks", "created_at",
    "started_at", "updated_at", "finished_at", "deadline_at", "last_polled_at", "last_progress_at", "next_poll_at",
)  # fmt: skip
"""Not among them: params, labels, callback, what else the registrant wrote, and `progress`, whose message may be output."""


class Findings:
    """Files by name, and by name of what is missing the reason."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.missing: dict[str, str] = {}
        self.daemon_up = False

    def text(self, name: str, find: Callable[[], str]) -> None:
        try:
            found = find()
        except (ClientError, OSError, ValueError, subprocess.SubprocessError) as error:
            self.missing[name] = without_secrets(_why(error))
        else:
            self.files[name] = without_secrets(found).encode(errors="replace")

    def json(self, name: str, find: Callable[[], Any]) -> None:
        self.text(name, lambda: json.dumps(find(), ensure_ascii=False, indent=1) + "\n")


def _why(error: Exception) -> str:
    return f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)


def collect(client: Client, workspace: Path | None = None, config_file: str | None = None, unit: Unit | None = None) -> Findings:
    """Never raises for what cannot be had. `workspace` and `config_file` are used as far as the daemon cannot be asked; without
    them those of the unit, else where the socket is."""
    found = Findings()
    home = workspace or Path(client.unix_socket).absolute().parent
    file = config_file
    if unit is not None:
        home, file = workspace or unit.workspace or home, config_file or unit.config_file
        found.text("journal.txt", lambda: _end_of_journal(unit.manager))
    try:
        info = client.info()
    except (DaemonUnreachable, AnswerUnknown) as error:
        found.missing["info.json, zones.json, actions.json, tasks.json, callbacks.json, log.txt"] = str(error)
        found.text("config.toml", lambda: _shown_config(home, file))
        found.json("check.json", lambda: check_file(home / "store.db"))
    except ClientError as error:
        found.missing["everything that the daemon knows"] = str(error)
    else:
        found.daemon_up = True
        found.json("info.json", lambda: info)
        home = _ask(client, found) or home
    found.json("host.json", lambda: _host(home))
    found.text("task-daemon.log", lambda: _end_of(home / LOG_NAME))
    return found


def _ask(client: Client, found: Findings) -> Path | None:
    """Everything the daemon tells; its workspace, if that is among it."""
    workspace: list[Path] = []

    def configuration() -> str:
        toml = str(client.configuration().get("toml"))
        line = re.search(r'^workspace = (".*")$', toml, re.MULTILINE)
        if line:
            workspace.append(Path(json.loads(line[1])))
        return toml

    found.text("config.toml", configuration)
    found.json("zones.json", client.zones)
    found.json("actions.json", client.actions)
    found.json("tasks.json", lambda: _tasks(client))
    found.json("callbacks.json", lambda: _callbacks(client))
    found.json("check.json", client.check_store)
    found.text("log.txt", lambda: "\n".join([*client.recent_log(), ""]))
    return workspace[0] if workspace else None


def _tasks(client: Client) -> dict[str, Any]:
    listed = list(islice(client.list(page_size=TASKS), TASKS))
    return {
        "listed": len(listed),
        "at_most": TASKS,
        "by_state": dict(Counter(task.state for task in listed)),
        "tasks": [_task(task) for task in listed],
    }


def _task(task: Task) -> dict[str, Any]:
    view = {name: task.raw.get(name) for name in TASK_MEMBERS} | {"percent": task.progress.percent}
    if isinstance(view["error"], Mapping):
        view["error"] = {name: view["error"].get(name) for name in ("kind", "message")}
    return view


def _callbacks(client: Client) -> list[dict[str, Any]]:
    return [_callback(each) for state in ("dead", "pending") for each in client.callbacks(state=state, limit=CALLBACKS)]


def _callback(callback: Callback) -> dict[str, Any]:
    names = ("id", "uid", "type", "via", "state", "attempts", "created_at", "next_at")
    view = {name: callback.raw.get(name) for name in names}
    target = urlsplit(callback.raw.get("url") or "")
    # Some receivers take whoever knows the path for the one who may call. Of the region there is a path only.
    view["target"] = f"{target.scheme}://{target.netloc}" if target.netloc else None
    view["tries"] = [
        {name: t.get(name) for name in ("at", "seconds", "status", "error")} for t in callback.raw.get("tries") or ()
    ]
    return view


def pack(files: Mapping[str, bytes], folder: str, path: str) -> None:
    """One archive with everything below `folder`, readable by its owner alone. Raises ClientError; never overwrites."""
    now = int(datetime.now(UTC).timestamp())
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
            for name, content in files.items():
                member = tarfile.TarInfo(f"{folder}/{name}")
                member.size, member.mtime, member.mode = len(content), now, 0o600
                archive.addfile(member, io.BytesIO(content))
    except FileExistsError:
        raise ClientError(f"cannot write {path}: it is there already; name a new file with --output") from None
    except OSError as error:
        raise ClientError(f"cannot write {path}: {error.strerror}") from error


# ---------------------------------------------------------------------- without the daemon


def _shown_config(workspace: Path, config_file: str | None) -> str:
    command = [*daemon_program(), "--show-config", f"--workspace={workspace}"]
    if config_file is not None:
        command.append(f"--config-file={config_file}")
    done = subprocess.run(command, capture_output=True, text=True, timeout=PROGRAM_TIMEOUT, cwd="/", check=False)  # noqa: S603
    if done.returncode:
        raise OSError(f"task-daemon --show-config ended with code {done.returncode}: {done.stderr.strip()}")
    source = config_file or "the built-in defaults or the installation's file: name another one with --config-file"
    return f"# the daemon is down; this is what it would be started with, from {source}\n{done.stdout}"


def check_file(store: Path) -> dict[str, Any]:
    """A quick check of a store that no daemon serves: read-only, so that it stays what it is. Raises OSError."""
    import sqlite3

    if not store.exists():
        raise OSError(f"there is no store at {store}")
    findings: list[str] = []
    complete = True
    connection = sqlite3.connect(f"{store.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
    limit = threading.Timer(CHECKED_FOR, connection.interrupt)
    limit.start()
    try:
        findings += [text for (text,) in connection.execute("PRAGMA quick_check(100)") if text != "ok"]
    except sqlite3.Error as error:
        complete = error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT
        findings += [f"it cannot be read to its end: {error}"] if complete else []
    finally:
        limit.cancel()
        limit.join()
        connection.close()
    ok = False if findings else True if complete else None
    return {"ok": ok, "complete": complete, "findings": findings, "by": "taskctl, the daemon is down"}


def _host(workspace: Path) -> dict[str, Any]:
    programs = {name: _version_of(name) for name in ("qemu-storage-daemon", "qemu-img", "qemu-system-x86_64", "systemctl")}
    return {
        "task-daemon": metadata.version("task-daemon"),
        "taskctl's python": platform.python_version(),
        "system": platform.platform(),
        "programs": programs,
        "workspace": str(workspace),
        "workspace's files": _listing(workspace),
        "disk": _disk(workspace),
    }


def _version_of(program: str) -> str | None:
    path = shutil.which(program)
    if path is None:
        return None
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=PROGRAM_TIMEOUT, check=False)  # noqa: S603
    except (OSError, subprocess.SubprocessError) as error:
        return f"cannot be asked: {error}"
    return (done.stdout.splitlines() or [f"ended with code {done.returncode}"])[0]


def _listing(workspace: Path) -> list[dict[str, Any]] | str:
    try:
        entries = [(entry.name, entry.stat(follow_symlinks=False)) for entry in os.scandir(workspace)]
    except OSError as error:
        return f"cannot be listed: {error.strerror}"
    return [
        {"name": name, "bytes": at.st_size, "mode": f"{at.st_mode:o}", "uid": at.st_uid, "changed": _rfc3339(at.st_mtime)}
        for name, at in sorted(entries, key=lambda entry: entry[0])
    ]


def _disk(workspace: Path) -> dict[str, int] | str:
    try:
        disk = os.statvfs(workspace)
    except OSError as error:
        return f"cannot be asked: {error.strerror}"
    return {"bytes": disk.f_blocks * disk.f_frsize, "free_bytes": disk.f_bavail * disk.f_frsize, "free_inodes": disk.f_favail}


def _end_of(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_TAIL))
        return file.read().decode(errors="replace")


def _end_of_journal(manager: str) -> str:
    command = ["journalctl", f"--{manager}", f"--unit={SERVICE}", f"--lines={JOURNAL_LINES}", "--no-pager", "--output=short-iso"]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=PROGRAM_TIMEOUT, check=False)  # noqa: S603
    if done.returncode:
        raise OSError(f"journalctl ended with code {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def without_secrets(text: str) -> str:
    """Credentials and queries of URLs are hidden: a second net, below what the daemon hides itself."""
    return QUERY.sub(rf"\1?{HIDDEN}", CREDENTIALS.sub(f"{HIDDEN}@", text))
