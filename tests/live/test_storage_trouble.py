"""Storage that runs full, dies, hangs and comes back."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from task_daemon.core.errors import BackendUnreachable, WorkGone
from task_daemon.core.model import State
from tests.backends.storage.making import run, tracked
from tests.live.storage_bench import MIB, Driver, Storage, qemu_img, same, write
from tests.waiting import eventually

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("qemu")]


@pytest.fixture
def storage(short_path: Path, qemu: None) -> Iterator[Storage]:
    made = Storage(short_path)
    yield made
    made.end()


@pytest.fixture
def driver(storage: Storage) -> Iterator[Driver]:
    made = Driver(storage, poll_timeout=2.0)
    yield made
    made.backend.close()


@pytest.fixture
def neighbour(short_path: Path, qemu: None) -> Iterator[Driver]:
    directory = short_path / "n"
    directory.mkdir()
    storage = Storage(directory)
    made = Driver(storage, poll_timeout=2.0)
    yield made
    made.backend.close()
    storage.end()


def _full_volume(storage: Storage) -> str:
    """A live volume whose file takes no more data after 2 MiB."""
    volume = storage.image("v.qcow2", data=0)
    fault = {"event": "none", "iotype": "write", "errno": 28, "sector": 2 * MIB // 512, "once": False}
    below = {"driver": "blkdebug", "image": {"driver": "file", "filename": str(volume)}, "inject-error": [fault]}
    storage.execute("blockdev-add", driver="qcow2", node_name="vol", file=below)
    return "vol"


def test_run_task_fails_with_the_storages_words_when_there_is_no_space(storage: Storage, driver: Driver) -> None:
    backup = storage.image("b.qcow2", data=8)
    task = driver.finish(driver.start(run("restore_backup", {"source": str(backup), "node": _full_volume(storage)})))
    assert task.state is State.FAILED
    assert task.error is not None
    assert (task.error.kind, task.error.message) == ("backend", "No space left on device")
    driver.forget(task)
    assert storage.nodes() == {"vol"}


def test_tracked_task_says_that_there_is_no_space_when_its_job_waits_for_it(storage: Storage, driver: Driver) -> None:
    target = _full_volume(storage)
    storage.open("src", storage.image("b.qcow2", data=8))
    job = {"job_id": "job-1", "auto_dismiss": False, "device": "src", "target": target, "sync": "full"}
    storage.execute("blockdev-backup", **job, on_target_error="enospc")
    latest = [tracked()]

    def told() -> bool:
        latest[0] = driver.poll(latest[0])
        progress = latest[0].progress
        return progress is not None and "no space left" in (progress.message or "")

    eventually("the task says why it waits", told)
    assert latest[0].state is State.RUNNING
    storage.execute("job-cancel", id="job-1")
    ended = driver.finish(latest[0])
    assert ended.state is State.FAILED


def test_f12_run_task_is_lost_at_once_when_the_storage_was_killed(storage: Storage, driver: Driver) -> None:
    source = storage.image("a.qcow2")
    params = {"source": str(source), "target": str(storage.images / "new.qcow2"), "speed": MIB}
    prepared = driver.prepare(run("clone", params))
    task = driver.applied(prepared, driver.start_report(prepared))
    storage.kill()
    with pytest.raises(BackendUnreachable, match="nobody listens"):
        driver.poll(task)
    storage.restart()
    lost = driver.poll(task)
    assert lost.state is State.LOST
    with pytest.raises(WorkGone, match="it may have run"):
        driver.start_report(prepared)
    driver.forget(lost)
    assert storage.files() == {"a.qcow2", "new.qcow2"}, "how lost work ended is for a person to decide: nothing is removed"


def test_f12_tracked_task_is_lost_after_three_absences_when_its_job_was_taken_away(storage: Storage, driver: Driver) -> None:
    for name in ("src", "dst"):
        storage.open(name, storage.image(f"{name}.qcow2"))
    job = {"job_id": "job-1", "auto_dismiss": False, "device": "src", "target": "dst", "sync": "full"}
    storage.execute("blockdev-backup", **job, speed=MIB)
    task = driver.poll(tracked())
    storage.execute("block-job-cancel", device="job-1")
    eventually("the job has concluded", lambda: storage.execute("query-jobs")[0]["status"] == "concluded")
    storage.execute("job-dismiss", id="job-1")
    states = []
    for _ in range(3):
        task = driver.poll(task)
        states.append(task.state)
    assert states == [State.RUNNING, State.RUNNING, State.LOST]


def test_tracked_task_whose_job_dismissed_itself_says_why_it_is_lost_and_what_to_do(storage: Storage, driver: Driver) -> None:
    for name in ("src", "dst"):
        storage.open(name, storage.image(f"{name}.qcow2"))
    storage.execute("blockdev-backup", job_id="job-1", device="src", target="dst", sync="full", speed=MIB)
    task = driver.poll(tracked())
    assert task.state is State.RUNNING
    storage.execute("block-job-set-speed", device="job-1", speed=0)
    eventually("the job has ended and is forgotten", lambda: storage.execute("query-jobs") == [])
    lost = driver.finish(task)
    assert lost.state is State.LOST
    assert lost.error is not None
    assert 'unless it was started with "auto-dismiss": false' in lost.error.message
    assert f"taskctl resolve {task.uid} succeeded" in lost.error.message


def test_hung_storage_is_unreachable_in_time_and_its_task_succeeds_when_it_goes_on(
    storage: Storage, driver: Driver, neighbour: Driver
) -> None:
    source, target = storage.image("a.qcow2"), storage.images / "new.qcow2"
    task = driver.start(run("clone", {"source": str(source), "target": str(target), "speed": 8 * MIB}))
    other = neighbour.storage.image("a.qcow2")
    healthy = run("clone", {"source": str(other), "target": str(neighbour.storage.images / "new.qcow2")})
    storage.stop()
    caught: list[BackendUnreachable] = []

    def poll() -> None:
        try:
            driver.poll(task)
        except BackendUnreachable as error:
            caught.append(error)

    thread = threading.Thread(target=poll)
    thread.start()
    other_task, answers = neighbour.start(healthy), 0
    while thread.is_alive():
        neighbour.backend.poll([other_task])
        answers += 1
    assert answers > 3, "the healthy zone waited for the hung one"
    assert neighbour.finish(other_task).state is State.SUCCEEDED
    assert "no answer to query-jobs within 2 s" in str(caught[0])
    storage.go_on()
    task = driver.finish(task)
    assert task.state is State.SUCCEEDED
    driver.forget(task)
    assert same(source, target)


def test_f7_one_question_answers_for_all_tasks_of_a_zone(storage: Storage, driver: Driver) -> None:
    for number in range(20):
        storage.execute(
            "blockdev-create", job_id=f"job-{number}", options={"driver": "file", "filename": "/nowhere/x", "size": 1}
        )
    tasks = [tracked(uid=f"uid-{number}", job=f"job-{number}") for number in range(20)]
    eventually("all have ended", lambda: all(job["status"] == "concluded" for job in storage.execute("query-jobs")))
    reports = driver.backend.poll(tasks)
    assert {report.message for report in reports.values()} == {"Could not create '/nowhere/x': No such file or directory"}
    assert len(reports) == 20


def test_zone_is_woken_when_a_job_concludes(storage: Storage, driver: Driver) -> None:
    woken = threading.Event()
    driver.backend.events(woken.set)
    source, target = storage.image("a.qcow2"), storage.images / "new.qcow2"
    driver.start(run("clone", {"source": str(source), "target": str(target)}))
    assert woken.wait(10)


def test_error_suspects_another_client_when_the_monitor_is_held(storage: Storage, driver: Driver) -> None:
    holder = Driver(storage)
    assert holder.backend.poll([]) == {}
    with pytest.raises(BackendUnreachable, match="another client may hold this monitor"):
        driver.poll(tracked())
    holder.backend.close()
    assert driver.poll(tracked()).state is State.QUEUED


@pytest.mark.parametrize("mode", ["clone", "mirror", "template", "restore", "commit"])
def test_result_survives_when_the_storage_is_killed_right_after_the_success_was_told(
    mode: str, storage: Storage, driver: Driver
) -> None:
    """Measured: QEMU concludes a backup with the target's metadata still in its memory."""
    source, target = storage.image("a.qcow2"), storage.images / "new.qcow2"
    copy = {"source": str(source), "target": str(target)}
    expected = source
    match mode:
        case "clone" | "mirror":
            task = run("clone", {**copy, "state": "start" if mode == "clone" else "end"})
        case "template":
            task = run("create_template", copy)
        case "restore":
            storage.image("base.qcow2")
            storage.image("new.qcow2", backing="base.qcow2")
            task = run("restore_backup", {"source": str(source), "volume": str(target)})
        case _:
            target, derived = source, storage.image("d.qcow2", backing="a.qcow2")
            write(derived, 9, mebibytes=8)
            expected = storage.images / "expected"
            qemu_img("convert", "-O", "qcow2", str(derived), str(expected))
            task = run("commit_template", {"source": str(derived), "template": str(source)})
    assert driver.finish(driver.start(task)).state is State.SUCCEEDED
    storage.kill()
    assert same(expected, target)
