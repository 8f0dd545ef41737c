"""Damaged stores: what can be read is taken over, what cannot is told."""

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from tornado.platform.asyncio import AsyncIOLoop

from task_daemon.clock import FakeClock
from task_daemon.core.errors import CursorExpired
from task_daemon.core.ports import NewTask
from task_daemon.engine.local import salvage
from tests.contract.engine_case import Case, a_delivery, a_task, running

COUNT = 300


@pytest.fixture
def stored(io_loop: AsyncIOLoop, short_path: Path, clock: FakeClock) -> Case:
    """A closed engine that remembers some tasks and a pending delivery."""
    case = Case("local", short_path, clock)
    case.answers = lambda row: case.down(row, 1e6)

    async def fill() -> None:
        await case.open()
        tasks = [a_task(id=f"d{n}", labels={"pad": "x" * 200}) for n in range(COUNT)]
        await case.engine.add([NewTask(task) for task in tasks])
        await case.engine.change([running(task, clock.now()) for task in tasks])
        ended = a_task(id="ended")
        await case.register(ended)
        await case.end(ended, a_delivery(ended))
        await case.engine.close()

    io_loop.run_sync(fill)
    return case


async def reopened(case: Case) -> None:
    case.engine = case._make()
    await case.open()


def root_pages(path: Path) -> dict[str, int]:
    with sqlite3.connect(path) as connection:
        pages = dict(connection.execute("SELECT name, rootpage FROM sqlite_master WHERE rootpage > 0").fetchall())
    connection.close()
    return pages


def leaf_pages(path: Path, table: str) -> list[int]:
    """Children of a table's root page but the last (its b-tree has two levels here)."""
    content = path.read_bytes()
    start = (root_pages(path)[table] - 1) * 4096
    assert content[start] in (0x02, 0x05), "not an interior page"
    cells = int.from_bytes(content[start + 3 : start + 5], "big")
    pointers = [int.from_bytes(content[start + 12 + 2 * n : start + 14 + 2 * n], "big") for n in range(cells)]
    return [int.from_bytes(content[start + at : start + at + 4], "big") for at in pointers]


def overwrite(path: Path, offset: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)


async def test_readable_tasks_are_taken_over_when_a_page_is_destroyed(stored: Case) -> None:
    store = stored.path / "store.db"
    pages = leaf_pages(store, "task")
    overwrite(store, (pages[len(pages) // 2] - 1) * 4096, os.urandom(4096))
    await reopened(stored)
    status = stored.engine.status()
    told = status["salvage"]
    assert COUNT * 0.5 < status["live"] < COUNT
    assert (stored.path / told["file"]).exists()
    assert told["incomplete"] == ["task"]
    assert told["kept"]["event"] == COUNT + 1
    assert told["kept"]["task"] + told["lost"]["task"] == COUNT + 1
    assert len(await stored.engine.deliveries(state="pending")) == 1
    (added,) = await stored.engine.add([NewTask(a_task(id="new"))])
    (event,) = await stored.engine.events(0, 9, added.task.uid)
    assert event.seq > 1_000_000, "the events of lost registrations had numbers"
    await stored.engine.close()


async def test_number_of_a_row_that_makes_no_sense_is_not_given_again(stored: Case) -> None:
    await reopened(stored)
    (last,) = await stored.engine.add([NewTask(a_task(id="last"))])
    (told,) = await stored.engine.events(0, 9, last.task.uid)
    await stored.engine.close()
    with sqlite3.connect(stored.path / "store.db") as connection:
        connection.execute("UPDATE task SET body = 'torn' WHERE id = 'last'")
    connection.close()
    salvage.suspect(stored.path / "store.db")
    await reopened(stored)
    assert stored.engine.status()["salvage"]["lost"]["task"] == 1
    (new,) = await stored.engine.add([NewTask(a_task(id="new"))])
    (event,) = await stored.engine.events(0, 9, new.task.uid)
    assert event.seq == told.seq + 1
    await stored.engine.close()


async def test_event_numbers_skip_and_cursors_expire_when_events_were_lost(stored: Case) -> None:
    store = stored.path / "store.db"
    overwrite(store, (leaf_pages(store, "event")[0] - 1) * 4096, bytes(4096))
    await reopened(stored)
    assert stored.engine.status()["live"] == COUNT
    with pytest.raises(CursorExpired) as refused:
        await stored.engine.events(COUNT, 10)
    await stored.engine.add([NewTask(a_task(id="new"))])
    (event,) = await stored.engine.events(refused.value.extra["oldest"], 10)
    assert event.seq > 1_000_000
    await stored.engine.close()


def zeroed(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def emptied(path: Path) -> None:
    os.truncate(path, 0)


def replaced(path: Path) -> None:
    path.write_text("this is no database" * 1000)


@pytest.mark.parametrize("damage", [zeroed, truncated, emptied, replaced])
async def test_start_goes_on_with_what_is_left_when_the_store_is_destroyed(stored: Case, damage: Callable[[Path], None]) -> None:
    damage(stored.path / "store.db")
    await reopened(stored)
    told = stored.engine.status()["salvage"]
    assert told["file"].startswith("store.db.damaged-2027")
    (added,) = await stored.engine.add([NewTask(a_task(id="new"))])
    await stored.engine.close()
    await reopened(stored)
    assert stored.engine.status()["salvage"] is None
    assert stored.engine.get(added.task.uid) == added.task
    await stored.engine.close()


async def test_sound_store_is_left_alone(stored: Case) -> None:
    await reopened(stored)
    assert stored.engine.status()["salvage"] is None
    assert stored.engine.status()["live"] == COUNT
    await stored.engine.close()
    assert list(stored.path.glob("*damaged*")) == []
