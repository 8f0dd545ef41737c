"""A workspace with many live tasks in its store, written directly: registering a million would take minutes.

What is in the store afterwards is what registering and watching would have left there, written by the daemon's own
`Tables`; only the flushes are left out. All of it was due long ago.
"""

import sqlite3
import time
from pathlib import Path

from task_daemon.core.model import Mode, Owner, Progress, State, Task
from task_daemon.core.ports import NewTask
from task_daemon.engine.local.migrate import migrate
from task_daemon.engine.local.tables import Tables

IN_ONE_COMMIT = 10_000
OWNER = Owner(1000, 1000, 4711)
TIMEOUT = 30 * 86_400.0


def fill(workspace: Path, tasks: int, zones: int) -> None:
    """`tasks` running tasks, registered an hour ago, in equal numbers in zones `z00000` and on."""
    workspace.mkdir(parents=True, exist_ok=True)
    path = workspace / "store.db"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL").fetchall()
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA cache_size = -262144")
    migrate(connection, path)
    tables = Tables(connection)
    begun = time.time() - 3600
    for first in range(0, tasks, IN_ONE_COMMIT):
        connection.execute("BEGIN")
        some = range(first, min(first + IN_ONE_COMMIT, tasks))
        tables.add([NewTask(running(n, zone_name(n * zones // tasks), begun + n * 1e-3)) for n in some], lambda _uid: None)
        connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connection.close()


def zone_name(number: int) -> str:
    return f"z{number:05}"


def zones_table(zones: int, settings: str = "") -> str:
    """The configuration of so many zones whose work never ends. `settings`: further members of each, as TOML."""
    job = 'scenario = [{ id = "*", finish_after = 1e9 }]'
    return "".join(f'[zones.{zone_name(n)}]\nbackend = "simulated"\n{job}\n{settings}\n' for n in range(zones))


def running(number: int, zone: str, at: float) -> Task:
    """A tracked task as it is after some polls."""
    milliseconds = int(at * 1000)
    uid = f"{milliseconds >> 16:08x}-{milliseconds & 0xFFFF:04x}-7{number >> 20:03x}-8{number >> 8 & 0xFFF:03x}-{number:012x}"
    return Task(
        uid=uid,
        id=f"disk-{number:08}",
        action="simulated",
        zone=zone,
        mode=Mode.TRACK,
        owner=OWNER,
        created_at=at,
        timeout=TIMEOUT,
        deadline_at=at + TIMEOUT,
        state=State.RUNNING,
        revision=9,
        task_seq=2,
        progress=Progress(percent=1.0, done=10_737_418, total=1 << 30, unit="bytes", rate=2982.6, eta_seconds=356_400.0),
        started_at=at + 1,
        updated_at=at + 3000,
        last_progress_at=at + 3000,
    )
