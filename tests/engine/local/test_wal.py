"""The log that is made long at once, beside a real SQLite that goes on writing into it."""

import errno
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
from tornado.platform.asyncio import AsyncIOLoop

from task_daemon.core.errors import OutcomeUnknown
from task_daemon.engine.local import burst as burst_module
from task_daemon.engine.local import store as store_module
from task_daemon.engine.local import wal
from task_daemon.engine.local.burst import BEGINS_AFTER
from tests.engine.local.test_burst import Registering
from tests.engine.local.test_store import kept_open

FRAMES = 600


@pytest.fixture
def store(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(tmp_path / "store.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL").fetchall()
        connection.execute("PRAGMA wal_autocheckpoint = 0").fetchall()
        connection.execute("CREATE TABLE thing (n INTEGER PRIMARY KEY)")
        connection.execute("INSERT INTO thing VALUES (1)")
        yield connection


def log_of(directory: Path) -> Path:
    return directory / "store.db-wal"


def length(directory: Path) -> int:
    return log_of(directory).stat().st_size


def after_power_loss(directory: Path, copy: Path) -> list[int]:
    """What somebody finds who opens the files as they lie there."""
    copy.mkdir()
    for name in ("store.db", "store.db-wal"):
        shutil.copy(directory / name, copy / name)
    with closing(sqlite3.connect(copy / "store.db")) as found:
        assert found.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return [n for (n,) in found.execute("SELECT n FROM thing ORDER BY n")]


def test_what_is_written_before_and_after_is_there_after_a_power_loss(store: sqlite3.Connection, tmp_path: Path) -> None:
    wal.fill(tmp_path / "store.db", FRAMES)
    assert length(tmp_path) == FRAMES * wal.FRAME
    assert after_power_loss(tmp_path, tmp_path / "at-once") == [1]
    for n in range(2, 100):
        store.execute("INSERT INTO thing VALUES (?)", (n,))
    assert length(tmp_path) == FRAMES * wal.FRAME, "no commit has made it longer"
    assert after_power_loss(tmp_path, tmp_path / "later") == [*range(1, 100)]


def test_what_is_written_after_a_checkpoint_is_there_after_a_power_loss(store: sqlite3.Connection, tmp_path: Path) -> None:
    wal.fill(tmp_path / "store.db", FRAMES)
    assert store.execute("PRAGMA wal_checkpoint(RESTART)").fetchone() == (0, 3, 3)
    store.execute("INSERT INTO thing VALUES (2)")
    assert after_power_loss(tmp_path, tmp_path / "copy") == [1, 2]


def test_a_log_that_is_longer_already_stays_as_it_is(store: sqlite3.Connection, tmp_path: Path) -> None:
    before = log_of(tmp_path).read_bytes()
    wal.fill(tmp_path / "store.db", 1)
    assert log_of(tmp_path).read_bytes() == before


def test_a_log_for_which_there_is_no_room_stays_as_it_is(
    store: sqlite3.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = log_of(tmp_path).read_bytes()
    write = os.pwrite

    def full(descriptor: int, data: bytes, place: int) -> int:
        if place > 1 << 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data, place)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        wal.fill(tmp_path / "store.db", FRAMES)
    assert log_of(tmp_path).read_bytes() == before
    with monkeypatch.context() as patched:
        patched.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=FRAMES * 3 // 2, f_frsize=wal.FRAME))
        wal.fill(tmp_path / "store.db", FRAMES)
    assert log_of(tmp_path).read_bytes() == before, "half of the room is left to others"
    store.execute("INSERT INTO thing VALUES (2)")
    assert after_power_loss(tmp_path, tmp_path / "copy") == [1, 2]


def test_a_store_without_a_log_is_left_alone(tmp_path: Path) -> None:
    wal.fill(tmp_path / "store.db", FRAMES)
    assert list(tmp_path.iterdir()) == []


async def test_the_log_of_a_store_gets_its_length_before_a_burst(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(burst_module, "QUICK", 60.0)
    monkeypatch.setattr(store_module, "LONGEST_WAL", FRAMES)
    registering = Registering(short_path)
    await registering.store.open(0.0)
    for number in range(BEGINS_AFTER):
        assert length(short_path) < FRAMES * wal.FRAME
        await registering.one(f"d-{number}")
    assert length(short_path) == FRAMES * wal.FRAME
    await registering.store.close()
    assert not log_of(short_path).exists()


@pytest.fixture
def registering(io_loop: AsyncIOLoop, short_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registering]:
    monkeypatch.setattr(burst_module, "QUICK", 60.0)
    monkeypatch.setattr(store_module, "LONGEST_WAL", FRAMES)
    yield from kept_open(io_loop, Registering(short_path))


@pytest.mark.parametrize("what", ["nothing new", "a slow disk", "a store that was moved away"])
async def test_the_log_of_a_store_grows_as_it_is_written_else(
    what: str, registering: Registering, short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if what == "a slow disk":
        monkeypatch.setattr(burst_module, "QUICK", 0.0)
    for number in range(BEGINS_AFTER - 1):
        await registering.one("same" if what == "nothing new" else f"d-{number}")
    if what == "a store that was moved away":
        there = short_path / "there"
        there.mkdir()
        for file in short_path.glob("store.db*"):
            file.rename(there / file.name)
        shutil.copytree(there, short_path, dirs_exist_ok=True)
        with pytest.raises(OutcomeUnknown):
            await registering.one("d")
    else:
        for _ in range(100):
            await registering.one("same" if what == "nothing new" else "d")
    assert length(short_path) < FRAMES * wal.FRAME


async def test_no_other_program_writes_while_the_log_gets_its_length(
    registering: Registering, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = []

    def tried(store: Path, frames: int) -> None:
        with closing(sqlite3.connect(store, timeout=0.0, isolation_level=None)) as beside:
            try:
                beside.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                refused.append(str(error))

    monkeypatch.setattr(wal, "fill", tried)
    for number in range(BEGINS_AFTER + 3):
        await registering.one(f"d-{number}")
    await registering.store.write(lambda _tables: None)
    assert refused == ["database is locked"], "once"
    assert registering.stored() == BEGINS_AFTER + 3
