"""The process is ended at each boundary between an effect outside and its record; the next start makes up for it."""

import re
import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from task_client.selftest.checks import broken_promises, settle
from task_client.selftest.load import Load
from task_client.selftest.receiver import MoodyReceiver
from task_client.selftest.scratch import CONFIG
from task_daemon.core.crash import POINTS, VARIABLE
from tests.daemons import Daemon
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "data" / "data.keep"
AT_THE_START = ("migrate.", "salvage.", "keep.")
# "...-record" is reached once for a whole batch of tasks, the others once for each.
# Whether there is a burst depends on the disk: tests/engine/local/test_burst.py reaches those.
UNDER_LOAD = [point for point in POINTS if not point.startswith((*AT_THE_START, "checkpoint.", "burst."))]
LONG = """
[daemon]
poll_interval = 0.1
[zones.sim]
backend = "simulated"
scenario = [{ id = "*", finish_after = 1000 }]
[zones.z1]
backend = "simulated"
scenario = [{ id = "*", finish_after = 100000 }]
"""
TASKS = 40

pytestmark = pytest.mark.crash


@pytest.fixture
def crashing(short_path: Path) -> Iterator[Callable[[str, str], Daemon]]:
    """A daemon, not started yet, that ends itself at a point; `healed` makes one in the same place that does not."""
    daemons: list[Daemon] = []

    def make(config: str, point: str) -> Daemon:
        daemons.append(Daemon(short_path, config, env={VARIABLE: point} if point else None))
        return daemons[-1]

    yield make
    for daemon in daemons:
        daemon.__exit__(None, None, None)


def test_every_point_is_reached_in_one_place() -> None:
    texts = [path.read_text() for path in (ROOT / "task_daemon").rglob("*.py")]
    reached = [name for text in texts for name in re.findall(r"crash\.reach\(\"([^\"]+)\"\)", text)]
    assert sorted(reached) == sorted(POINTS)


def test_exit_is_2_when_there_is_no_such_point(crashing: Callable[[str, str], Daemon]) -> None:
    daemon = crashing(CONFIG, "no-such-point")
    daemon.start(ready=False)
    assert daemon.wait() == 2
    assert "cannot crash at 'no-such-point': accepted is" in daemon.said()


@pytest.mark.parametrize("point", UNDER_LOAD)
def test_i1_i2_i4_i7_no_promise_is_broken_when_the_daemon_dies_at(point: str, crashing: Callable[[str, str], Daemon]) -> None:
    with MoodyReceiver(1) as receiver:
        daemon = crashing(CONFIG, f"{point}:{1 if point.endswith('-record') else 4}")
        load = Load(daemon.socket, receiver.url)
        load.allow(TASKS)
        try:
            daemon.start(ready=False)
            assert daemon.wait() == -signal.SIGKILL
            daemon = crashing(CONFIG, "").start()
            load.finish()
            with daemon.client() as client:
                started = daemon.workspace / "zones" / "sim" / "starts.log"
                assert settle(client) == []
                assert broken_promises(client, load, receiver, started.read_text().split()) == []
        finally:
            load.abandon()
        assert len(load.acknowledged) == TASKS
        assert daemon.stop() == 0


@pytest.mark.parametrize("point", [point for point in POINTS if point.startswith("migrate.")])
def test_store_is_brought_to_its_version_when_the_daemon_died_at(point: str, crashing: Callable[[str, str], Daemon]) -> None:
    assert crashing(LONG, point).run() == -signal.SIGKILL
    daemon = crashing(LONG, "").start()
    with daemon.client() as client:
        assert client.get(client.register("a", "backup", "sim").uid).id == "a"
    assert daemon.stop() == 0


def test_progress_and_tasks_are_there_when_the_daemon_died_at_a_checkpoint(crashing: Callable[[str, str], Daemon]) -> None:
    daemon = crashing(LONG, "checkpoint.between").start()
    with daemon.client() as client:
        uids = {client.register(f"d{n}", "backup", "sim").uid for n in range(TASKS)}
        eventually("there is progress", lambda: all((task.progress.percent or 0) > 0 for task in client.list()))
        shown = {task.uid: task.raw["revision"] for task in client.list()}
    assert daemon.stop() == -signal.SIGKILL
    daemon = crashing(LONG, "").start()
    with daemon.client() as client:
        eventually("all are taken in", lambda: not client.info()["status"]["loading"])
        found = {task.uid: task.raw["revision"] for task in client.list()}
    assert set(found) == uids
    assert [uid for uid in uids if found[uid] < shown[uid]] == [], "a revision that was shown came again"


def damage(store: Path) -> None:
    """An index is lost, the tables can be read to their end."""
    with sqlite3.connect(store) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'task_zone'").fetchone()
    connection.close()
    with store.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(bytes(4096))


@pytest.mark.parametrize("point", [point for point in POINTS if point.startswith("salvage.")])
def test_everything_readable_is_saved_when_the_daemon_died_at(point: str, crashing: Callable[[str, str], Daemon]) -> None:
    daemon = crashing(LONG, "").start()
    with daemon.client() as client:
        uids = {client.register(f"d{n}", "backup", "sim").uid for n in range(TASKS)}
    assert daemon.stop() == 0
    store = daemon.workspace / "store.db"
    damage(store)
    shutil.copy(store, daemon.home / "damaged")
    assert crashing(LONG, point).run() == -signal.SIGKILL
    daemon = crashing(LONG, "").start()
    with daemon.client() as client:
        assert {task.uid for task in client.list()} == uids
        told = client.info()["status"]["salvage"]
        assert client.register("d0", "backup", "sim").uid in uids
    (aside,) = daemon.workspace.glob("store.db.damaged-*Z")
    assert aside.read_bytes() == (daemon.home / "damaged").read_bytes()
    assert list(daemon.workspace.glob("store.db.resc*")) == []
    if point == "salvage.replaced":  # all was done, only not told yet
        assert told is None
    else:
        assert (told["file"], told["kept"]["task"], told["incomplete"]) == (aside.name, TASKS, [])


@pytest.mark.parametrize("point", [point for point in POINTS if point.startswith("keep.")])
def test_f3_old_tasks_are_taken_in_once_when_the_daemon_died_at(point: str, crashing: Callable[[str, str], Daemon]) -> None:
    daemon = crashing(LONG, point)
    daemon.workspace.mkdir(mode=0o700)
    shutil.copy(GOLDEN, daemon.workspace / "data.keep")
    assert daemon.run() == -signal.SIGKILL
    daemon = crashing(LONG, "").start()
    with daemon.client() as client:
        found = sorted(task.id for task in client.list())
    assert len(found) == len(set(found)) == GOLDEN.read_text().count('"id"')
    assert [path.name for path in daemon.workspace.glob("data.keep*")] == ["data.keep.imported"]
