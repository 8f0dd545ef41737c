"""Taking in what the old service left behind."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tornado.platform.asyncio import AsyncIOLoop

from task_daemon.clock import FakeClock
from task_daemon.core.errors import StoreFull
from task_daemon.core.model import Mode, Owner, Query, Task
from task_daemon.engine.local.engine import LocalEngine
from task_daemon.engine.local.legacy_keep import import_keep
from tests.contract.engine_case import Case

GOLDEN = Path(__file__).parents[2] / "data" / "data.keep"
OWNER = Owner(0, 0)


@pytest.fixture
def case(io_loop: AsyncIOLoop, short_path: Path, clock: FakeClock) -> Iterator[Case]:
    case = Case("local", short_path, clock)
    io_loop.run_sync(case.open)
    yield case
    io_loop.run_sync(case.engine.close)


async def take(case: Case, content: str | bytes | None = None) -> int:
    path = case.path / "data.keep"
    if content is None:
        shutil.copy(GOLDEN, path)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return await import_keep(case.engine, path, case.clock.now(), OWNER)


async def tasks(case: Case) -> dict[str, Task]:
    return {task.id: task for task in (await case.engine.find(Query(limit=500))).tasks}


def entry(**members: Any) -> dict[str, Any]:
    return {
        "id": "x",
        "action": "backup",
        "zone": "z1",
        "count": 0,
        "size_in_bytes": 0,
        "size_reported": False,
        "region_task_id": None,
    } | members


async def test_i11_f1_f3_every_task_of_the_old_service_is_taken_in(case: Case) -> None:
    assert await take(case) == 9
    found = await tasks(case)
    now = case.clock.now()
    assert {task.mode for task in found.values()} == {Mode.TRACK}
    assert {name: task.deadline_at - now for name, task in found.items()} == {
        "vol-0001": 42000,
        "vol-0002": 60,
        "bk-0003": 42900,
        "bk-0004": 37200,
        "bk-0005": 37200,
        "vol-0006": 43200,
        "bk-0007": 43100,
        "tpl-0008": 7200,
        "tpl-0009": 60,
    }
    sizes = {name: (task.size, task.size_told) for name, task in found.items() if name.startswith("bk")}
    assert sizes == {
        "bk-0003": (None, False),
        "bk-0004": (21474836480, False),
        "bk-0005": (21474836480, True),
        "bk-0007": (None, False),
    }
    assert (found["bk-0005"].region_task_id, found["vol-0001"].region_task_id) == (17, "rt-1")
    assert sorted(path.name for path in case.path.glob("data.keep*")) == ["data.keep.imported"]


async def test_nothing_is_taken_in_twice_when_the_rename_was_lost(case: Case) -> None:
    await take(case)
    await case.end((await tasks(case))["vol-0001"])
    await case.reopen()
    case.clock.advance(100)
    assert await take(case) == 0
    assert len(await tasks(case)) == 9


async def test_there_is_nothing_to_do_when_there_is_no_file(case: Case) -> None:
    assert await import_keep(case.engine, case.path / "data.keep", case.clock.now(), OWNER) == 0


@pytest.mark.parametrize("content", ['[{"id": "a", "acti', "{}", "", b"\xff\xfe", "[" * 5000])
async def test_f3_file_is_kept_aside_when_it_is_torn_or_senseless(
    case: Case, content: str | bytes, caplog: pytest.LogCaptureFixture
) -> None:
    assert await take(case, content) == 0
    (aside,) = case.path.glob("data.keep*")
    assert aside.name.startswith("data.keep.damaged-2027")
    assert "cannot take in" in caplog.text


async def test_good_entries_are_taken_in_and_bad_ones_named_when_some_make_no_sense(
    case: Case, caplog: pytest.LogCaptureFixture
) -> None:
    content = [
        entry(id="good"),
        entry(id=5),
        "text",
        entry(id="no-zone", zone=""),
        entry(id="minus", count=-1),
        entry(id="good", region_task_id="other"),
        {"id": "short", "action": "clone", "zone": "z9"},
    ]
    assert await take(case, json.dumps(content)) == 2
    assert set(await tasks(case)) == {"good", "short"}
    (aside,) = case.path.glob("data.keep*")
    assert aside.name.startswith("data.keep.damaged-")
    for name in ("id 5", "no id", "'no-zone'", "'minus'", "region_task_id"):
        assert name in caplog.text


async def test_file_stays_when_the_store_is_full(case: Case) -> None:
    assert isinstance(case.engine, LocalEngine)
    connection = case.engine.store.connection
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}").fetchall()
    content = json.dumps([entry(id=f"d{n}", region_task_id="r" * 250) for n in range(100)])
    with pytest.raises(StoreFull):
        await take(case, content)
    assert [path.name for path in case.path.glob("data.keep*")] == ["data.keep"]
    connection.execute("PRAGMA max_page_count = 100000").fetchall()
    await import_keep(case.engine, case.path / "data.keep", case.clock.now(), OWNER)
    assert len(await tasks(case)) == 100
