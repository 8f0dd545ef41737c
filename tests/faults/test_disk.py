"""Disks that are full, slow, taken away or read-only, and stores of other versions or with flipped bits.

A failing fsync, pages of garbage and a head of zeros are in tests/test_daemon.py, other damage in tests/engine/local.
"""

import os
import random
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from task_client import Client
from task_client.errors import ClientError, RequestRefused
from task_daemon.engine.local.migrate import migrations
from task_daemon.engine.local.reserve import NAME, SIZE, Reserve
from tests.conftest import missing
from tests.daemons import Daemon
from tests.data.stores.make import ENDED
from tests.disk_faults import DiskFaults
from tests.receivers import Receiver
from tests.waiting import eventually

STORES = Path(__file__).parents[1] / "data" / "stores"
DISK = 24 * 1024 * 1024  # bytes
CONFIG = """
[daemon]
poll_interval = 0.1
[zones.sim]
backend = "simulated"
scenario = [{ id = "soon-*", finish_after = 2 }, { id = "*", finish_after = 1000 }]
[callbacks]
schedule = [0, 0.1, 0.1, 0.2, 0.2, 0.5, 0.5, 1, 1, 2, 2, 5, 5, 5, 5]
"""


def mounted(place: Path, *options: str) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", ",".join((f"size={DISK}", "mode=0700", *options)), "none", str(place)]
    return subprocess.run(command, capture_output=True, timeout=20, check=False).returncode == 0


@pytest.fixture
def small_disk(short_path: Path) -> Iterator[Path]:
    """A file system of its own for the workspace."""
    place = short_path / "w"
    place.mkdir()
    if shutil.which("mount") is None or not mounted(place):
        missing("the right to mount a tmpfs")
    yield place
    subprocess.run(["umount", "-l", str(place)], timeout=20, check=True)


def fill(disk: Path) -> Path:
    """Take every last byte."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(65536)):
            pass
    with filler.open("ab", buffering=0) as file, suppress(OSError):
        while file.write(b"x"):
            pass
    return filler


def refused(client: Client, name: str) -> RequestRefused | None:
    try:
        client.register(name, "backup", "sim", labels={"pad": "x" * 200})
    except RequestRefused as error:
        return error
    return None


def until_refused(client: Client) -> RequestRefused:
    """The WAL has some room of its own before it must grow."""
    for number in range(20_000):
        error = refused(client, f"long-{number}")
        if error is not None:
            return error
    raise AssertionError("a full disk took 20,000 tasks")


def test_ends_and_callbacks_go_on_and_new_work_is_refused_while_the_disk_is_full(short_path: Path, small_disk: Path) -> None:
    with Receiver() as receiver, Daemon(short_path, CONFIG) as daemon, daemon.client() as client:
        assert (small_disk / NAME).stat().st_blocks * 512 >= SIZE
        drafts = [{"id": f"soon-{n}", "action": "backup", "zone": "sim", "callback": receiver.url} for n in range(50)]
        soon = {task.uid for task in client.register_many(drafts)}
        before = client.register("long-before", "backup", "sim")
        filler = fill(small_disk)
        error = until_refused(client)
        assert (error.status, error.code) == (507, "store-full")
        assert not (small_disk / NAME).exists()
        assert not client.readyz()
        eventually("they ended", lambda: {task.uid for task in client.list(state="succeeded", page_size=500)} == soon)
        told = {request.json()["data"]["task"]["uid"] for request in receiver.wait(len(soon))}
        assert told == soon
        eventually("that they were told is stored", lambda: not client.callbacks(state="pending"))
        again = refused(client, "meanwhile")
        assert again is not None
        assert again.code == "store-full"
        assert client.register("long-before", "backup", "sim").uid == before.uid, "what is on disk is answered for"

        filler.unlink()
        eventually("it is ready again by itself", client.readyz)
        assert (small_disk / NAME).stat().st_blocks * 512 >= SIZE
        assert refused(client, "after") is None
        known = {task.uid for task in client.list(page_size=500)}
        daemon.kill()
        daemon.start()
        assert {task.uid for task in client.list(page_size=500)} == known
        assert "the disk of the store has room again" in daemon.log.read_text()


def test_readyz_says_why_when_the_disk_is_full(short_path: Path, small_disk: Path) -> None:
    with Daemon(short_path, CONFIG) as daemon, daemon.client() as client:
        fill(small_disk)
        until_refused(client)
        answer = client._caller.transport.request("GET", "/readyz", {}, None)
        assert (answer.status, answer.json()["code"]) == (503, "degraded")
        assert "the disk of the store is full" in answer.json()["detail"]
        assert client.info()["phase"] == "degraded"


def test_reserve_is_not_made_of_the_last_room(short_path: Path, small_disk: Path) -> None:
    with (small_disk / "filler").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, DISK - SIZE - 1024 * 1024)
    reserve = Reserve(small_disk)
    assert not reserve.make()
    assert reserve.missing
    (small_disk / "filler").unlink()
    assert reserve.make()
    assert not reserve.missing
    assert reserve.give_up()
    assert not reserve.give_up()


def test_i10_daemon_stops_with_4_when_its_directory_is_removed(short_path: Path) -> None:
    with Daemon(short_path, CONFIG) as daemon, daemon.client(timeout=5) as client:
        client.register("before", "backup", "sim")
        shutil.rmtree(daemon.workspace)
        with pytest.raises(ClientError):
            client.register("after", "backup", "sim")
        assert daemon.wait() == 4
        assert "the store failed and the daemon stops" in daemon.said()


def test_i10_daemon_stops_with_4_when_the_kernel_makes_its_disk_read_only(short_path: Path) -> None:
    disk = DiskFaults(short_path)
    with Daemon(short_path, CONFIG, env=disk.env) as daemon, daemon.client(timeout=5) as client:
        before = client.register("before", "backup", "sim")
        disk.make_read_only(True)
        with pytest.raises(ClientError):
            client.register("after", "backup", "sim")
        assert daemon.wait() == 4
        disk.make_read_only(False)
        daemon.start()
        assert client.get(before.uid).id == "before"


def test_start_is_refused_with_the_cause_when_the_disk_is_read_only(short_path: Path, small_disk: Path) -> None:
    with Daemon(short_path, CONFIG) as daemon:
        with daemon.client() as client:
            before = client.register("before", "backup", "sim")
        assert daemon.stop() == 0
        subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], timeout=20, check=True)
        assert daemon.run() in {2, 4}
        assert "Read-only file system" in daemon.said() or "readonly" in daemon.said()
        assert "Traceback" not in daemon.said()
        subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], timeout=20, check=True)
        daemon.start()
        with daemon.client() as client:
            assert client.get(before.uid).id == "before"


def test_registrations_share_commits_when_the_disk_is_slow(short_path: Path) -> None:
    disk = DiskFaults(short_path)
    with Daemon(short_path, CONFIG, env=disk.env) as daemon, daemon.client() as client:
        disk.slow_down(True)
        before = client.info()["status"]["store"]["commits"]

        def register(number: int) -> None:
            with daemon.client() as own:
                for count in range(10):
                    own.register(f"long-{number}-{count}", "backup", "sim")

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(register, range(16)))
        store = client.info()["status"]["store"]
        assert store["commits"] - before < 160 / 2
        assert store["commit_seconds"] >= 0.01


@pytest.mark.parametrize("version", range(1, len(migrations()) + 1))
def test_store_of_every_version_is_opened_and_goes_on(version: int, short_path: Path) -> None:
    workspace = short_path / "w"
    workspace.mkdir(mode=0o700)
    shutil.copy(STORES / f"{version}.db", workspace / "store.db")
    with Daemon(short_path, CONFIG) as daemon, daemon.client() as client:
        tasks = {task.id: task for task in client.list()}
        assert {name: tasks[name].state for name in ENDED} == ENDED
        assert set(tasks) == {*ENDED, "tracked", "run"}
        assert tasks["tracked"].raw["labels"] == {"team": "a"}
        assert client.register("run", "simulated", "sim", params={}, idempotency_key="a-key", timeout=3e7).uid == tasks["run"].uid
        assert [event.type for event in client.events(tasks["failed"].uid)][-1] == "task.failed"
        assert len(client.callbacks(state="pending")) == 4
        assert client.info()["status"]["salvage"] is None
        assert refused(client, "new") is None
        assert daemon.stop() == 0


def serves(daemon: Daemon) -> bool:
    """Whether it answers and takes work; if not, it has stopped with 4."""
    try:
        daemon.start()
        with daemon.client(timeout=5) as client:
            assert len(list(client.list())) <= len(ENDED) + 3
            assert refused(client, f"new-{daemon.pid}") is None, daemon.said()
            eventually(
                "a callback was tried", lambda: any(each.attempts for each in client.callbacks()) or not client.callbacks()
            )
        assert daemon.stop() == 0
    except (ClientError, AssertionError):
        assert daemon.wait() == 4, daemon.said()
        return False
    return True


@pytest.mark.parametrize("version", [1, 2])
def test_daemon_serves_again_wherever_bits_were_flipped(short_path: Path, version: int) -> None:
    """What is noticed at the start is set aside and salvaged; what is noticed only later stops the daemon once."""
    chance = random.Random(20261121)
    sound = (STORES / f"{version}.db").read_bytes()
    for round_ in range(5):
        home = short_path / str(round_)
        (home / "w").mkdir(mode=0o700, parents=True)
        damaged = bytearray(sound)
        for _ in range(8):
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        (home / "w" / "store.db").write_bytes(damaged)
        daemon = Daemon(home, CONFIG)
        assert serves(daemon) or serves(daemon), round_


def test_index_that_disagrees_with_its_table_is_noticed_and_made_anew(short_path: Path) -> None:
    """The regular look at the start does not compare indexes with tables; the one after such a stop does."""
    with Daemon(short_path, CONFIG) as daemon:
        with daemon.client() as client:
            uids = {client.register(f"soon-{n}", "backup", "sim").uid for n in range(20)}
        assert daemon.stop() == 0
        store = daemon.workspace / "store.db"
        with sqlite3.connect(store) as connection:
            (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'task_id'").fetchone()
        connection.close()
        with store.open("r+b") as file:
            file.seek((page - 1) * 4096)
            content = file.read(4096)
            file.seek((page - 1) * 4096)
            file.write(content.replace(b"simbackup", b"sinbackup"))
        assert daemon.run() == 4
        daemon.start()
        with daemon.client() as client:
            assert {task.uid for task in client.list()} == uids
            assert client.info()["status"]["salvage"]["kept"]["task"] == len(uids)
            eventually("all have ended", lambda: not list(client.list(done=False)))
        assert daemon.stop() == 0
