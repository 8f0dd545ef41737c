"""Statements for many rows."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from task_daemon.engine.local.migrate import migrate
from task_daemon.engine.local.rows import CHUNKS, SQL, many, repeated

VARIABLES = 32_766  # in one statement; SQLite's own limit since 3.32, a distribution may only raise it


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    path = tmp_path / "store.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as made:
        migrate(made, path)
        yield made


@pytest.mark.parametrize("count", [0, 1, 9, 63, 101, 999, 1500])
def test_every_row_is_written_once_however_many_there_are(count: int, connection: sqlite3.Connection) -> None:
    rows = [(n, str(n).encode()) for n in range(1, count + 1)]
    assert many(connection, "add_payload", rows) == count
    assert connection.execute("SELECT delivery, body FROM payload ORDER BY delivery").fetchall() == rows


@pytest.mark.parametrize("count", [1, 8, 64, 100, 500])
def test_as_many_rows_as_people_choose_for_a_batch_are_one_statement(count: int, connection: sqlite3.Connection) -> None:
    statements: list[str] = []
    connection.set_trace_callback(statements.append)
    many(connection, "add_payload", [(n, b"") for n in range(count)])
    assert len(statements) == 1


@pytest.mark.parametrize("name", [name for name, sql in SQL.items() if "[" in sql])
def test_the_longest_statement_is_within_the_limits_of_every_sqlite(name: str, connection: sqlite3.Connection) -> None:
    longest = repeated(name, CHUNKS[0])
    assert longest.count("?") <= VARIABLES
    connection.execute(f"EXPLAIN {longest}", (None,) * longest.count("?")).close()
