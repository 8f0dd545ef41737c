"""Bringing a store to the version that this daemon knows, step by step: `migrations/0001_*.sql` and those after it."""

import sqlite3
from importlib import resources
from pathlib import Path

from task_daemon.core import crash
from task_daemon.core.errors import StoreTooNew


def migrations() -> list[str]:
    folder = resources.files(__package__).joinpath("migrations")
    return [
        entry.read_text("utf-8")
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name)
        if entry.name.endswith(".sql")
    ]


def migrate(connection: sqlite3.Connection, path: Path, to: int | None = None) -> None:
    """Bring the store to this version, or `to` one, each numbered step in a transaction. Raises StoreTooNew for a later one."""
    steps = migrations()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(steps):
        raise StoreTooNew(
            f"cannot open the store {path}: it has version {version} and this daemon knows up to {len(steps)}; "
            "install the newer daemon again, or use another workspace"
        )
    for number, script in enumerate(steps[version:to], version + 1):
        connection.executescript(f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {number};")
        crash.reach("migrate.inside")
        connection.execute("COMMIT")
        crash.reach("migrate.between")
