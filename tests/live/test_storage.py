"""All actions in both modes against a real qemu-storage-daemon: how they succeed, and what is left of them."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from task_daemon.core.errors import StartRefused
from task_daemon.core.model import State, Task, Verdict
from tests.backends.storage.making import UID, run, tracked
from tests.live.storage_bench import MIB, Driver, Storage, qemu_img, same, write

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("qemu")]

SLOW = MIB  # bytes a second: an image of 16 MiB takes long enough to see the middle
ALL = [
    "clone_snapshot",
    "clone",
    "backup",
    "restore_backup",
    "delete_backup",
    "create_template",
    "commit_template",
    "migrate_template",
]


@pytest.fixture
def storage(short_path: Path, qemu: None) -> Iterator[Storage]:
    made = Storage(short_path)
    yield made
    made.end()


@pytest.fixture
def driver(storage: Storage) -> Iterator[Driver]:
    made = Driver(storage)
    yield made
    made.backend.close()


@pytest.fixture
def peer(short_path: Path, qemu: None) -> Iterator[Storage]:
    """The storage of another place."""
    directory = short_path / "peer"
    directory.mkdir()
    made = Storage(directory)
    yield made
    made.end()


class Case:
    """A task of one action that can be started, and how to see that it did its work."""

    def __init__(self, params: dict[str, Any], proof: Callable[[], bool]) -> None:
        self.params = params
        self.proof = proof


@pytest.fixture
def case(storage: Storage, request: pytest.FixtureRequest) -> Callable[[str], Case]:
    def make(action: str) -> Case:
        images = storage.images
        if action in ("clone_snapshot", "clone", "backup", "create_template"):
            source = storage.image("a.qcow2")
            target = images / "new.qcow2"
            return Case({"source": str(source), "target": str(target)}, lambda: same(source, target))
        if action == "restore_backup":
            backup, volume = storage.image("b.qcow2"), storage.image("v.qcow2")
            return Case({"source": str(backup), "volume": str(volume)}, lambda: same(backup, volume))
        if action == "delete_backup":
            return _middle_of_a_chain(storage)
        if action == "commit_template":
            template, derived = storage.image("t.qcow2"), storage.image("d.qcow2", backing="t.qcow2")
            write(derived, 7, mebibytes=8)
            expected = images / "expected.qcow2"
            qemu_img("convert", "-O", "qcow2", str(derived), str(expected))
            return Case({"source": str(derived), "template": str(template)}, lambda: same(expected, template))
        return _exported(storage, request.getfixturevalue("peer"))

    return make


def _middle_of_a_chain(storage: Storage) -> Case:
    full, inc1 = storage.image("full.qcow2"), storage.image("inc1.qcow2", backing="full.qcow2")
    write(inc1, 1, mebibytes=8)
    inc2 = storage.image("inc2.qcow2", backing="inc1.qcow2")
    write(inc2, 2, offset=9)
    copies = {path: storage.images / f"{path.stem}.copy" for path in (full, inc2)}
    for path, copy in copies.items():
        qemu_img("convert", "-O", "qcow2", str(path), str(copy))

    def proof() -> bool:
        backing = json.loads(qemu_img("info", "-U", "--output=json", str(inc2)))["backing-filename"]
        return not inc1.exists() and backing == str(full) and all(same(copy, path) for path, copy in copies.items())

    return Case({"backup": str(inc1), "child": str(inc2)}, proof)


def _exported(storage: Storage, peer: Storage) -> Case:
    source, target = storage.image("a.qcow2"), peer.images / "received.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", str(target), str(16 * MIB))
    peer.open("received", target)
    socket = str(peer.directory / "nbd.sock")
    peer.execute("nbd-server-start", addr={"type": "unix", "data": {"path": socket}})
    peer.execute("block-export-add", type="nbd", id="e", node_name="received", name="received", writable=True)
    url = f"nbd+unix:///received?socket={socket}"
    return Case({"source": str(source), "target": url}, lambda: same(source, target))


@pytest.mark.parametrize("action", ALL)
def test_run_task_succeeds_and_leaves_only_its_result(
    action: str, storage: Storage, driver: Driver, case: Callable[[str], Case]
) -> None:
    work = case(action)
    task = driver.finish(driver.start(run(action, work.params)))
    assert (task.state, task.error) == (State.SUCCEEDED, None)
    assert task.progress is not None
    assert task.progress.percent == 100.0
    driver.forget(task)
    assert work.proof()
    assert storage.jobs() == []
    assert storage.nodes() == set()
    assert [name for name in storage.files() if name.startswith(".")] == []
    if "target" in work.params and action != "migrate_template":
        qemu_img("check", "-q", work.params["target"])


@pytest.mark.parametrize("action", ALL)
def test_run_task_is_adopted_and_cancelled_and_nothing_half_made_stays(
    action: str, storage: Storage, driver: Driver, case: Callable[[str], Case]
) -> None:
    """Slowed down so that its middle can be seen; after a crash of the daemon `start` is called again."""
    work = case(action)
    before = storage.files()
    prepared = driver.prepare(run(action, {**work.params, "speed": SLOW}))
    driver.start_report(prepared)
    driver.restart()
    adopted = driver.start_report(prepared)
    assert adopted.adopted
    assert storage.jobs() == [f"task-{UID}"]
    task = driver.cancel(driver.applied(prepared, adopted))
    assert task.state is State.CANCELLED
    driver.forget(task)
    assert storage.jobs() == []
    assert storage.nodes() == set()
    assert storage.files() == before


@pytest.mark.parametrize("action", ALL)
def test_tracked_task_follows_a_job_that_somebody_else_started(action: str, storage: Storage, driver: Driver) -> None:
    for name in ("src", "dst"):
        storage.open(name, storage.image(f"{name}.qcow2", mebibytes=4, data=1))
    task = tracked(action, job=None)
    assert driver.poll(task).state is State.QUEUED
    job = {"job_id": f"{action}-disk-1", "auto_dismiss": False, "speed": SLOW, "device": "src", "target": "dst", "sync": "full"}
    storage.execute("blockdev-backup", **job)
    running = driver.poll(task)
    assert running.state is State.RUNNING
    assert running.handle is not None
    assert running.handle["job"] == f"{action}-disk-1"
    assert (running.size == 4 * MIB) is (action == "backup")
    storage.execute("block-job-set-speed", device=f"{action}-disk-1", speed=0)
    assert driver.finish(running).state is State.SUCCEEDED


def test_clone_of_a_live_volume_has_the_state_of_its_end_and_the_volume_stays_in_place(storage: Storage, driver: Driver) -> None:
    volume, target = storage.image("v.qcow2"), storage.images / "c.qcow2"
    storage.open("vol", volume)
    task = driver.finish(driver.start(run("clone", {"node": "vol", "target": str(target), "state": "end"})))
    driver.forget(task)
    assert task.state is State.SUCCEEDED
    assert same(volume, target)
    assert storage.nodes() == {"vol"}


def test_incremental_backup_holds_what_changed_since_the_full_one(storage: Storage, driver: Driver) -> None:
    volume, full, inc = storage.image("v.qcow2"), storage.images / "full.qcow2", storage.images / "inc.qcow2"
    storage.open("vol", volume)
    params = {"node": "vol", "target": str(full), "bitmap": "bm0"}
    task = driver.finish(driver.start(run("backup", params)))
    driver.forget(task)
    assert same(volume, full)
    # Something must write to the live volume: a restore of another image does.
    other = storage.image("other.qcow2")
    restored = driver.finish(driver.start(run("restore_backup", {"source": str(other), "node": "vol"})))
    driver.forget(restored)
    params = {"node": "vol", "target": str(inc), "bitmap": "bm0", "base": str(full)}
    task = driver.finish(driver.start(run("backup", params)))
    driver.forget(task)
    assert (task.state, task.error) == (State.SUCCEEDED, None)
    assert same(other, inc)
    assert json.loads(qemu_img("info", "--output=json", str(inc)))["full-backing-filename"] == str(full)


def test_bitmap_of_a_full_backup_goes_with_it_when_it_is_cancelled(storage: Storage, driver: Driver) -> None:
    storage.open("vol", storage.image("v.qcow2"))
    params = {"node": "vol", "target": str(storage.images / "full.qcow2"), "bitmap": "bm0", "speed": SLOW}
    task = driver.cancel(driver.start(run("backup", params)))
    driver.forget(task)
    again = driver.finish(driver.start(run("backup", {**params, "speed": 0})))
    assert again.state is State.SUCCEEDED
    driver.forget(again)
    refused = driver.prepare(run("backup", {**params, "target": str(storage.images / "second.qcow2")}))
    with pytest.raises(StartRefused, match="bm0"):
        driver.start_report(refused)
    driver.forget(driver.timed_out(refused))
    assert "second.qcow2" not in storage.files()
    (node,) = [n for n in storage.execute("query-named-block-nodes", flat=True) if n["node-name"] == "vol"]
    assert [bitmap["name"] for bitmap in node["dirty-bitmaps"]] == ["bm0"]


def test_oldest_backup_is_deleted_by_making_the_next_one_independent(storage: Storage, driver: Driver) -> None:
    full, inc = storage.image("full.qcow2"), storage.image("inc.qcow2", backing="full.qcow2")
    write(inc, 3)
    copy = storage.images / "copy"
    qemu_img("convert", "-O", "qcow2", str(inc), str(copy))
    task = driver.finish(driver.start(run("delete_backup", {"backup": str(full), "child": str(inc)})))
    driver.forget(task)
    assert not full.exists()
    assert "backing-filename" not in json.loads(qemu_img("info", "--output=json", str(inc)))
    assert same(copy, inc)


def test_backup_without_child_is_deleted_at_once_and_only_once(storage: Storage, driver: Driver) -> None:
    backup = storage.image("b.qcow2")
    prepared = driver.prepare(run("delete_backup", {"backup": str(backup)}))
    driver.start_report(prepared)
    assert not backup.exists()
    newer = storage.image("b.qcow2")
    driver.restart()  # the verdict was not stored: it must be found again, and the newer file stay
    assert driver.poll(prepared).state is State.SUCCEEDED
    task = driver.applied(prepared, driver.start_report(prepared))
    assert task.state is State.SUCCEEDED
    driver.forget(task)
    assert newer.exists()
    assert storage.files() == {"b.qcow2"}
    with pytest.raises(StartRefused, match="no such file"):
        driver.start(run("delete_backup", {"backup": str(storage.images / "nothing")}))


def test_existing_file_is_never_overwritten_nor_removed(storage: Storage, driver: Driver) -> None:
    source, target = storage.image("a.qcow2"), storage.images / "mine.qcow2"
    target.write_bytes(b"precious")
    prepared = driver.prepare(run("clone", {"source": str(source), "target": str(target)}))
    with pytest.raises(StartRefused, match=r"mine\.qcow2: it exists already; name a file that does not exist"):
        driver.start_report(prepared)
    driver.forget(driver.timed_out(prepared))
    assert target.read_bytes() == b"precious"
    assert storage.nodes() == set()
    assert storage.files() == {"a.qcow2", "mine.qcow2"}


def test_half_start_is_cleaned_up_when_it_is_repeated(storage: Storage, driver: Driver) -> None:
    """The daemon died after making the target and opening the nodes, before starting the job."""
    source, target = storage.image("a.qcow2"), storage.images / "new.qcow2"
    prepared = driver.prepare(run("clone", {"source": str(source), "target": str(target)}))
    driver.start_report(prepared)
    driver.finish(prepared)
    storage.execute("job-dismiss", id=f"task-{UID}")
    assert storage.nodes() != set()
    driver.restart()
    task: Task = driver.finish(driver.applied(prepared, driver.start_report(prepared)))
    driver.forget(task)
    assert task.state is State.SUCCEEDED
    assert same(source, target)
    assert storage.nodes() == set()


def test_sizes_must_be_equal_when_a_backup_is_restored(storage: Storage, driver: Driver) -> None:
    params = {"source": str(storage.image("b.qcow2")), "volume": str(storage.image("v.qcow2", mebibytes=32))}
    with pytest.raises(StartRefused, match="holds 16777216 bytes and the volume 33554432"):
        driver.start(run("restore_backup", params))


def test_work_is_stopped_first_when_a_task_ended_before_its_job(storage: Storage, driver: Driver) -> None:
    source, target = storage.image("a.qcow2"), storage.images / "new.qcow2"
    task = driver.start(run("clone", {"source": str(source), "target": str(target), "speed": SLOW}))
    driver.forget(driver.timed_out(task))
    assert storage.jobs() == []
    assert storage.files() == {"a.qcow2"}


def test_storage_is_not_asked_what_kills_it_while_a_stream_is_listed(storage: Storage, driver: Driver) -> None:
    """QEMU 7.2 dies of query-named-block-nodes while a concluded stream is not dismissed."""
    storage.image("base.qcow2")
    storage.open("top", storage.image("top.qcow2", backing="base.qcow2"))
    volume, target = storage.image("v.qcow2"), storage.images / "new.qcow2"
    storage.open("vol", volume)
    storage.execute("block-stream", job_id="stream-1", device="top", auto_dismiss=False)
    stream = tracked("clone_snapshot", job="stream-1", uid="stream")
    assert driver.finish(stream).state is State.SUCCEEDED
    params = {"node": "vol", "target": str(target)}
    refused = driver.prepare(run("clone", params))
    with pytest.raises(StartRefused, match="while stream job stream-1 is listed, QEMU may die of it; give `size`"):
        driver.start_report(refused)
    driver.forget(driver.timed_out(refused))
    task = driver.finish(driver.start(run("clone", {**params, "size": 16 * MIB})))
    driver.forget(task)
    assert task.state is State.SUCCEEDED
    assert same(volume, target)


def test_merged_backup_is_known_to_be_deleted_when_the_storage_restarts_before_the_verdict_is_stored(
    storage: Storage, driver: Driver
) -> None:
    work = _middle_of_a_chain(storage)
    prepared = driver.prepare(run("delete_backup", work.params))
    driver.start_report(prepared)
    assert driver.finish(prepared).state is State.SUCCEEDED
    storage.restart()
    driver.restart()
    assert driver.start_report(prepared).verdict is Verdict.SUCCEEDED
    task = driver.poll(prepared)
    assert task.state is State.SUCCEEDED
    driver.forget(task)
    assert work.proof()


def test_raw_images_are_copied_too(storage: Storage, driver: Driver) -> None:
    source, target = storage.image("a.qcow2"), storage.images / "new.raw"
    task = driver.finish(driver.start(run("clone", {"source": str(source), "target": str(target), "format": "raw"})))
    driver.forget(task)
    assert same(source, target, "raw")
