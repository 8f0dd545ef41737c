"""The look through a store in use: what it finds, and that it stands in nobody's way."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from task_daemon.engine.local import check
from task_daemon.engine.local.check import Checker

PAGE = 4096


def store(directory: Path, rows: int = 2000) -> Path:
    path = directory / "store.db"
    with closing(sqlite3.connect(path)) as made:
        made.execute("PRAGMA journal_mode = WAL").fetchall()
        made.execute("CREATE TABLE task (uid TEXT PRIMARY KEY, body TEXT)")
        made.executemany("INSERT INTO task VALUES (?, ?)", ((f"u{n}", "x" * 500) for n in range(rows)))
        made.commit()
        made.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return path


async def test_sound_store_has_no_findings(tmp_path: Path) -> None:
    found = await Checker(store(tmp_path)).check()

    assert (list(found.findings), found.complete) == ([], True)


async def test_damaged_pages_are_found(tmp_path: Path) -> None:
    path = store(tmp_path)
    with path.open("r+b") as file:
        file.seek(10 * PAGE)
        file.write(b"\xff" * PAGE)
    found = await Checker(path).check()

    assert found.findings
    assert found.complete


async def test_file_that_is_no_store_is_a_finding(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.write_bytes(b"no database " * 1000)
    found = await Checker(path).check()

    assert (list(found.findings), found.complete) == (["it cannot be read to its end: file is not a database"], True)


async def test_check_ends_unfinished_when_time_is_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "LOOKED_FOR", 0.0)
    found = await asyncio.wait_for(Checker(store(tmp_path, 50_000)).check(), 20)

    assert not found.complete


async def test_check_ends_unfinished_when_the_engine_closes_and_the_wal_can_be_taken_in(tmp_path: Path) -> None:
    path = store(tmp_path, 50_000)
    checker = Checker(path)
    checking = asyncio.ensure_future(checker.check())
    await asyncio.sleep(0)
    checker.stop()
    found = await asyncio.wait_for(checking, 20)

    assert not found.complete
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("INSERT INTO task VALUES ('last', '')")
        writer.commit()
        assert writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0, "somebody still reads"


async def test_writing_goes_on_while_the_store_is_checked(tmp_path: Path) -> None:
    path = store(tmp_path, 50_000)
    with closing(sqlite3.connect(path, timeout=0)) as writer:
        writer.execute("SELECT count(*) FROM task").fetchone()  # whoever is the first to open the WAL locks it for a moment
        checking = asyncio.ensure_future(Checker(path).check())
        await asyncio.sleep(0)
        writer.execute("INSERT INTO task VALUES ('meanwhile', '')")
        writer.commit()

        assert (await asyncio.wait_for(checking, 30)).findings == []
