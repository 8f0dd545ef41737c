"""Watching real processes that this test, not the daemon, has started."""

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from task_daemon.backends.process import ProcessBackend
from task_daemon.core import transitions
from task_daemon.core.errors import Forbidden, InvalidBody, StartRefused
from task_daemon.core.model import Mode, Owner, State, Task, Verdict
from tests.backends.process.made import backend, look, until_ended, watched
from tests.waiting import eventually


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def admitted(zone: ProcessBackend, task: Task) -> Task:
    return replace(task, handle=zone.admit(task))


def test_process_is_seen_while_it_runs(zone: ProcessBackend, sleeper: subprocess.Popen[bytes]) -> None:
    task = admitted(zone, watched(str(sleeper.pid)))

    assert look(zone, task).verdict is Verdict.GOING_ON


def test_id_is_the_pid_when_job_is_absent(zone: ProcessBackend, sleeper: subprocess.Popen[bytes]) -> None:
    """So that the old registration, which has no job, can watch a process too."""
    task = replace(watched("1"), job=None, id=str(sleeper.pid))

    assert look(zone, admitted(zone, task)).verdict is Verdict.GOING_ON


def test_f12_task_is_lost_at_once_when_process_ends_unjudged(zone: ProcessBackend, sleeper: subprocess.Popen[bytes]) -> None:
    """Also while it is still a zombie: nobody has asked for its exit status."""
    task = admitted(zone, watched(str(sleeper.pid)))
    sleeper.kill()

    change = transitions.apply(task, until_ended(zone, task), now=1.0)

    assert change is not None
    assert change.task.state is State.LOST
    assert change.task.error is not None
    assert "PID?status=/path/of/file-with-exit-status" in change.task.error.message


@pytest.mark.parametrize("wrong", ["start", "boot"])
def test_process_has_ended_when_its_pid_belongs_to_another(
    zone: ProcessBackend, sleeper: subprocess.Popen[bytes], wrong: str
) -> None:
    task = admitted(zone, watched(str(sleeper.pid)))
    assert task.handle is not None
    other = {"start": task.handle["start"] + 1} if wrong == "start" else {"boot": "another"}

    report = look(zone, replace(task, handle=task.handle | other))

    assert (report.verdict, report.certain) == (Verdict.VANISHED, True)
    assert ("machine was restarted" in (report.message or "")) is (wrong == "boot")


@pytest.mark.parametrize("there", [True, False])
def test_result_decides_when_existence_is_checked(
    zone: ProcessBackend, sleeper: subprocess.Popen[bytes], short_path: Path, there: bool
) -> None:
    result = short_path / "result of it?=%"
    task = admitted(zone, watched(f"{sleeper.pid}?exists={result}"))
    if there:
        result.touch()
    sleeper.kill()

    assert until_ended(zone, task).verdict is (Verdict.SUCCEEDED if there else Verdict.FAILED)


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("0\n", Verdict.SUCCEEDED),
        ("3\n", Verdict.FAILED),
        ("", Verdict.VANISHED),
        ("fine\n", Verdict.VANISHED),
        (None, Verdict.VANISHED),
    ],
)
def test_status_decides_when_a_status_file_is_named(
    zone: ProcessBackend, sleeper: subprocess.Popen[bytes], short_path: Path, text: str | None, verdict: Verdict
) -> None:
    task = admitted(zone, watched(f"{sleeper.pid}?status={short_path}/status"))
    if text is not None:
        (short_path / "status").write_text(text)
    sleeper.kill()

    assert until_ended(zone, task).verdict is verdict


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can look as somebody else")
def test_files_are_looked_at_with_the_callers_rights(zone: ProcessBackend, short_path: Path) -> None:
    """Else anybody could ask the daemon what is in a directory of root's."""
    (short_path / "status").write_text("0\n")
    (short_path / "status").chmod(0o600)
    with subprocess.Popen(["sleep", "60"], user=65534) as process:
        try:
            task = admitted(zone, watched(f"{process.pid}?status={short_path}/status", owner=Owner(65534, 65534)))
        finally:
            process.kill()

    assert until_ended(zone, task).verdict is Verdict.VANISHED


def test_zone_is_woken_when_process_ends(zone: ProcessBackend, sleeper: subprocess.Popen[bytes]) -> None:
    woken = threading.Event()
    zone.events(woken.set)
    task = admitted(zone, watched(str(sleeper.pid)))
    look(zone, task)
    assert not woken.is_set()
    sleeper.kill()

    assert woken.wait(10)


def test_i9_process_is_watched_on_when_daemon_restarts(short_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    first = backend(short_path)
    task = admitted(first, watched(str(sleeper.pid)))
    first.close()

    assert look(backend(short_path), task).verdict is Verdict.GOING_ON
    assert sleeper.poll() is None


def test_progress_is_position_in_the_file_being_read(zone: ProcessBackend, short_path: Path) -> None:
    """The largest file whose position moves; a larger one that lies still does not count."""
    (short_path / "data").write_bytes(bytes(1000))
    (short_path / "idle").write_bytes(bytes(5000))
    with (
        open(short_path / "idle", "rb") as idle,
        open(short_path / "data", "rb") as data,
        subprocess.Popen(["sleep", "60"], pass_fds=[idle.fileno(), data.fileno()]) as process,
    ):
        try:
            os.lseek(idle.fileno(), 4000, os.SEEK_SET)
            task = admitted(zone, watched(str(process.pid)))
            eventually("exec", lambda: Path(f"/proc/{process.pid}/comm").read_text() == "sleep\n")
            assert look(zone, task).progress is None
            os.lseek(data.fileno(), 250, os.SEEK_SET)  # shared with the process, as after fork

            progress = look(zone, task).progress
        finally:
            process.kill()

    assert progress is not None
    assert (progress.percent, progress.done, progress.total, progress.unit) == (25.0, 250, 1000, "bytes")


@pytest.mark.parametrize("job", ["x", "0", "-1", "12?exists=relative", "12?when=/x", "12?exists=", "99999999999"])
def test_job_is_refused_by_name_when_malformed(zone: ProcessBackend, job: str) -> None:
    with pytest.raises(InvalidBody, match="accepted: 'PID'") as refused:
        zone.admit(watched(job))

    assert refused.value.members[0][0] == "/job"


def test_job_is_refused_when_there_is_no_such_process(zone: ProcessBackend, sleeper: subprocess.Popen[bytes]) -> None:
    sleeper.kill()
    sleeper.wait(10)

    with pytest.raises(InvalidBody, match="there is no process"):
        zone.admit(watched(str(sleeper.pid)))


def test_job_is_refused_when_it_is_only_a_thread(zone: ProcessBackend) -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.wait, args=(20,))
    thread.start()
    try:
        with pytest.raises(InvalidBody, match="one thread"):
            zone.admit(watched(str(thread.native_id)))
    finally:
        done.set()
        thread.join()


def test_job_is_refused_when_process_belongs_to_another(zone: ProcessBackend) -> None:
    with pytest.raises(InvalidBody, match="belongs to uid") as refused:
        zone.admit(watched(str(os.getpid()), owner=Owner(uid=os.getuid() + 4242, gid=0)))

    assert refused.value.members[0][0] == "/job"


def test_check_is_refused_when_daemon_may_not_look_as_the_caller(zone: ProcessBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4242)

    with pytest.raises(Forbidden, match="only if it is root"):
        zone.admit(watched(f"{os.getpid()}?exists=/x", owner=Owner(uid=0, gid=0)))


def test_params_are_refused_when_process_should_be_started(zone: ProcessBackend) -> None:
    task = replace(watched("1"), mode=Mode.RUN, params={})

    with pytest.raises(InvalidBody, match="use action 'command'"):
        zone.admit(task)
    with pytest.raises(StartRefused):
        zone.actions["process"].start(task)
