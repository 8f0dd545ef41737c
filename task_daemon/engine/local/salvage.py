"""A damaged store is moved aside, and what can still be read of it is taken over, row by row.

A start that is cut short on the way loses nothing: what can be read is copied into a file beside the store first
(`.rescuing-*`; begun again if it was not finished), which then gets its final name (`.rescued-*`: it is complete and on
disk), and only then is the damaged store moved aside and replaced. A `.rescued-*` file says that the last two are to be done.
"""

import logging
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from task_daemon.core import crash
from task_daemon.engine.local.rows import SQL, delivery_of, event_of, moving_of, task_of

log = logging.getLogger("task_daemon.engine")

SEQUENCES_SKIPPED = 1_000_000
"""Events that were lost had numbers, and somebody may have seen them: new ones begin well above."""

Make = Callable[[sqlite3.Connection, int], None]
"""Bring an empty or older store to a version."""

DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
BROKEN = (
    sqlite3.DatabaseError,
    UnicodeDecodeError,
)  # the latter when SQLite quotes a name that is no text
TABLES = ("task", "progress", "event", "delivery", "payload", "idempotency", "meta", "paused")
NUMBERED = ("task", "event")  # by the sequence of an event


def examine(path: Path, version: int, make: Make) -> str | None:
    """Why the store at `path` cannot be used; None if it can, or if there is none.

    Indexes and rows are looked at only after a stop because of them (`suspect`): that costs time for each row, and a start
    must not. Rows only in a store of this `version`: of another one it is not known what they should be."""
    wal = Path(f"{path}-wal")
    if not path.exists():
        return None
    if path.stat().st_size == 0 and not (wal.exists() and wal.stat().st_size):
        return "it is empty"
    try:
        with closing(_open(path)) as connection:
            thorough = _mark(path).exists()
            check = "integrity_check" if thorough else "quick_check"
            (verdict,) = connection.execute(f"PRAGMA {check}(1)").fetchone()
            if verdict == "ok" and connection.execute("PRAGMA user_version").fetchone() == (version,):
                verdict = _strange_tables(connection, version, make) or (thorough and _strange_row(connection)) or verdict
    except BROKEN as error:
        if isinstance(error, sqlite3.Error) and code_of(error) not in DAMAGED:
            raise  # a full disk, no permission, no descriptor: the store itself may be in order
        return str(error)
    return None if verdict == "ok" else str(verdict)


def mend(path: Path, now: float, version: int, make: Make) -> dict[str, Any] | None:
    """Leave a sound store (or none) at `path`; answers what was saved and what was lost of a damaged one, None if it was sound.

    `version`: the current one; what is saved of an older store is brought to it by the same steps as a sound one.
    `now`: wall time, for the name of the damaged file.
    """
    for complete in path.parent.glob(f"{path.name}.rescued-*"):
        log.warning("an earlier start was cut short while it replaced a damaged store; going on with %s", complete.name)
        return _replace(path, complete)
    reason = examine(path, version, make)
    if reason is None:
        _mark(path).unlink(missing_ok=True)
        return None
    for torn in path.parent.glob(f"{path.name}.rescuing-*"):
        torn.unlink()
    stamp = _free_stamp(path, now)
    rescuing = path.with_name(f"{path.name}.rescuing-{stamp}")
    with closing(sqlite3.connect(rescuing, isolation_level=None)) as target:  # a rollback journal: one file when it is closed
        target.execute("PRAGMA synchronous = FULL")
        make(target, min(version, _version(path) or version))
        rescue(path, f"{path.name}.damaged-{stamp}", target, reason)
        make(target, version)
    crash.reach("salvage.copied")
    complete = path.with_name(f"{path.name}.rescued-{stamp}")
    rescuing.rename(complete)
    sync(path.parent)
    crash.reach("salvage.complete")
    return _replace(path, complete)


def suspect(path: Path) -> None:
    """The store turned out to be damaged although it had looked sound: the next start looks at all indexes and rows too,
    which takes longer than the regular check."""
    _mark(path).touch(mode=0o600)


def _mark(path: Path) -> Path:
    return path.with_name(f"{path.name}.suspect")


def sync(path: Path) -> None:
    """Make what was written to a file, or renamed in a directory, last."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def code_of(error: BaseException, otherwise: int = sqlite3.SQLITE_CORRUPT) -> int:
    """SQLite's primary code. An sqlite3.Error that has none was raised by Python: a text that is not UTF-8."""
    return int(getattr(error, "sqlite_errorcode", otherwise)) & 0xFF


def is_damage(error: BaseException) -> bool:
    """Whether what was stored cannot be read back: damaged pages, bytes that are no text, a row that makes no sense."""
    if isinstance(error, sqlite3.Error):
        return code_of(error) in DAMAGED or "decode" in str(error).lower()
    return isinstance(error, msgspec.DecodeError | UnicodeDecodeError)


def _version(path: Path) -> int:
    try:
        with closing(_open(path)) as source:
            (version,) = source.execute("PRAGMA user_version").fetchone()
            return int(version)
    except BROKEN:
        return 0  # nothing can be read at all


def _strange_tables(connection: sqlite3.Connection, version: int, make: Make) -> str | None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as model:
        make(model, version)
        if not _shape(model) <= _shape(connection):
            return "its tables are not what they should be"
    return None


def _strange_row(connection: sqlite3.Connection) -> str | None:
    """What is wrong with the rows of a store whose pages are in order."""
    for table in ("task", "event", "delivery"):
        rows = connection.execute(f"SELECT * FROM {table}")  # noqa: S608
        columns = [column[0] for column in rows.description]
        for row in rows:
            if not _makes_sense(table, dict(zip(columns, row, strict=True))):
                return f"a row of table {table} makes no sense"
    return None


def _shape(connection: sqlite3.Connection) -> set[tuple[str, str]]:
    return set(connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'"))


def _free_stamp(path: Path, now: float) -> str:
    stamp = first = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    count = 1
    while path.with_name(f"{path.name}.damaged-{stamp}").exists():
        count += 1
        stamp = f"{first}-{count}"
    return stamp


def _replace(path: Path, complete: Path) -> dict[str, Any]:
    """Move the damaged store and its WAL aside, so that they still belong together, and the rescued one in. Repeatable."""
    stamp = complete.name.removeprefix(f"{path.name}.rescued-")
    aside = path.with_name(f"{path.name}.damaged-{stamp}")
    if Path(f"{path}-wal").exists():
        os.rename(f"{path}-wal", f"{aside}-wal")
    Path(f"{path}-shm").unlink(missing_ok=True)
    crash.reach("salvage.moving")
    if path.exists():
        path.rename(aside)
    sync(path.parent)
    crash.reach("salvage.moved")
    complete.rename(path)
    _mark(path).unlink(missing_ok=True)
    sync(path.parent)
    crash.reach("salvage.replaced")
    with closing(_open(path)) as connection:
        (report,) = connection.execute("SELECT value FROM meta WHERE name = 'salvage'").fetchone()
    told: dict[str, Any] = msgspec.json.decode(report)
    return told


def rescue(damaged: Path, name: str, target: sqlite3.Connection, reason: str) -> None:
    """Copy every readable row into the new store, and what was kept and what was lost; logs it too. `name`: what the damaged
    file will be called."""
    kept: dict[str, int] = {}
    lost: dict[str, int] = {}
    incomplete: list[str] = []
    target.execute("BEGIN IMMEDIATE")
    with closing(_open(damaged)) as source:
        last = 0
        known = {name for (name,) in target.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        for table in [table for table in TABLES if table in known]:
            copy = _Table(source, target, table)
            kept[table] = copy.copy()
            lost[table] = copy.lost
            if table in NUMBERED:
                last = max(last, copy.highest)
            if not copy.complete:
                incomplete.append(table)
        if "payload" in known:
            unsent = target.execute("DELETE FROM delivery WHERE n NOT IN (SELECT delivery FROM payload)").rowcount
            kept["delivery"], lost["delivery"] = kept["delivery"] - unsent, lost["delivery"] + unsent
        _continue_sequence(source, target, last, skip=bool({*NUMBERED, "meta"}.intersection(incomplete)))
    report = {"file": name, "reason": reason, "kept": kept, "lost": lost, "incomplete": incomplete}
    for row in (("clean", "0"), ("salvage", msgspec.json.encode(report).decode())):
        target.execute(SQL["set_meta"], row)
    target.execute("COMMIT")
    log.error(
        "the store was damaged (%s) and is kept as %s; taken over: %s; known to be lost: %s; perhaps more lost of: %s",
        reason,
        name,
        ", ".join(f"{count} of {table}" for table, count in kept.items()),
        ", ".join(f"{count} of {table}" for table, count in lost.items() if count) or "nothing",
        ", ".join(incomplete) or "nothing",
    )


class _Table:
    """One table on its way from the damaged store into the new one."""

    def __init__(self, source: sqlite3.Connection, target: sqlite3.Connection, table: str) -> None:
        self._source = source
        self._target = target
        self._table = table
        columns = target.execute(f"PRAGMA table_info({table})").fetchall()
        self._columns = [row[1] for row in columns]
        self._places = [row[0] for row in columns if row[5]]
        self._key = ", ".join(self._columns[place] for place in self._places)
        self._seen: set[tuple[Any, ...]] = set()
        self.lost = 0  # rows that are known to have been there
        self.highest = 0  # number of a row, also of those that make no sense
        self.complete = False

    def copy(self) -> int:
        marks = ", ".join("?" * len(self._columns))
        statement = f"INSERT OR IGNORE INTO {self._table} ({', '.join(self._columns)}) VALUES ({marks})"  # noqa: S608
        count = 0
        for row in self._rows():
            if isinstance(row[0], int):
                self.highest = max(self.highest, row[0])
            if _makes_sense(self._table, dict(zip(self._columns, row, strict=True))):
                count += self._target.execute(statement, row).rowcount
            else:
                self.lost += 1
        return count

    def _rows(self) -> Iterator[tuple[Any, ...]]:
        """From the front, then from the back, then one by one whatever the indexes know besides."""
        yield from self._scan("ASC")
        if self.complete:
            return
        yield from self._scan("DESC")
        self.complete = False
        for key in self._keys_of_indexes():
            if key in self._seen:
                continue
            self._seen.add(key)
            row = self._one(key)
            if row is None:
                self.lost += 1
            else:
                yield row

    def _scan(self, order: str) -> Iterator[tuple[Any, ...]]:
        by = ", ".join(f"{name} {order}" for name in self._key.split(", "))
        try:
            for row in self._source.execute(f"SELECT {', '.join(self._columns)} FROM {self._table} ORDER BY {by}"):  # noqa: S608
                key = tuple(row[place] for place in self._places)
                if key in self._seen:
                    continue
                self._seen.add(key)
                yield row
            self.complete = True
        except BROKEN as error:
            log.warning("reading table %s of the damaged store: %s", self._table, error)

    def _keys_of_indexes(self) -> Iterator[tuple[Any, ...]]:
        try:
            indexes = [
                row[1] for row in self._source.execute(f"PRAGMA index_list({self._table})") if row[3] == "c" and not row[4]
            ]
        except BROKEN:
            return
        for index in indexes:
            try:
                yield from self._source.execute(f"SELECT {self._key} FROM {self._table} INDEXED BY {index}")  # noqa: S608
            except BROKEN as error:
                log.warning("reading index %s of the damaged store: %s", index, error)

    def _one(self, key: tuple[Any, ...]) -> tuple[Any, ...] | None:
        where = " AND ".join(f"{name} = ?" for name in self._key.split(", "))
        try:
            row: tuple[Any, ...] | None = self._source.execute(
                f"SELECT {', '.join(self._columns)} FROM {self._table} WHERE {where}",  # noqa: S608
                key,
            ).fetchone()
        except BROKEN:
            return None
        return row


def _makes_sense(table: str, fields: dict[str, Any]) -> bool:
    """Whether a row can be read back: SQLite sees no bit that was flipped inside a text."""
    try:
        if table == "task":
            return bool(task_of(fields["body"]).uid == fields["uid"])
        if table == "delivery":
            return bool(delivery_of((fields["body"], b"")).id == fields["id"])
        if table == "payload":
            return isinstance(fields["body"], bytes)
        if table == "progress":
            moving_of(fields["body"])
        if table == "event":
            event_of(tuple(fields[name] for name in ("uid", "type", "time", "task_seq", "detail", "seq")))
    except (msgspec.MsgspecError, UnicodeDecodeError, TypeError):
        return False
    return True


def _continue_sequence(source: sqlite3.Connection, target: sqlite3.Connection, last: int, skip: bool) -> None:
    """Event numbers go on above every one that was given. `last`: the highest that was seen in a row."""
    known = target.execute("SELECT CAST(value AS INTEGER) FROM meta WHERE name IN ('horizon', 'last_seq')")
    last = max(last, 0, *(number for (number,) in known))
    with suppress(*BROKEN, TypeError):  # what an older version knew
        row = source.execute("SELECT seq FROM sqlite_sequence WHERE name = 'event'").fetchone()
        last = max(last, row[0] if row else 0)
    numbers = [("last_seq", last)]
    if skip:
        last += SEQUENCES_SKIPPED
        numbers = [("last_seq", last), ("horizon", last)]
    for name, number in numbers:
        target.execute(SQL["set_meta"], (name, str(number)))


def _open(path: Path) -> sqlite3.Connection:
    """Read-only: closing it must not take the WAL into a damaged file."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
