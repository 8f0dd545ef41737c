"""Commands of real processes, under their real supervisor."""

import os
import subprocess
import threading
from pathlib import Path

import msgspec
import pytest

from task_daemon.backends.process import ProcessBackend, identity
from task_daemon.backends.process.command import CommandParams
from task_daemon.backends.process.jobs import Job
from task_daemon.core.errors import BackendError, Forbidden, InvalidBody, StartRefused
from task_daemon.core.model import Mode, Owner, Verdict
from tests.backends.process.made import NOBODY, backend, command, forget, look, until_ended
from tests.waiting import eventually

WAITS = ("sh", "-c", "echo $$ > pid.new; mv pid.new pid; exec sleep 60")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can run commands of others")


@pytest.mark.parametrize(
    ("script", "verdict", "message"),
    [
        ("echo done", Verdict.SUCCEEDED, None),
        ("echo first; echo no space left >&2; exit 3", Verdict.FAILED, "exit status 3: no space left"),
        ("kill -9 $$", Verdict.FAILED, "killed by SIGKILL"),
    ],
)
def test_end_is_reported_when_command_ends(zone: ProcessBackend, script: str, verdict: Verdict, message: str | None) -> None:
    task = command("sh", "-c", script)
    zone.actions["command"].start(task)

    report = until_ended(zone, task)

    assert (report.verdict, report.message) == (verdict, message)


def test_failure_carries_status_and_output_when_command_fails(zone: ProcessBackend) -> None:
    task = command("sh", "-c", "echo one; echo two; exit 7")
    zone.actions["command"].start(task)

    assert until_ended(zone, task).backend == {"exit_status": 7, "output": "one\ntwo\n"}


@pytest.mark.parametrize(
    ("argv", "cwd", "cause"),
    [
        (["no-such-program"], "/", "cannot run no-such-program: No such file or directory"),
        (["true"], "/no/such/place", "cannot run /no/such/place: No such file or directory"),
    ],
)
def test_start_is_refused_when_command_cannot_be_run(zone: ProcessBackend, argv: list[str], cwd: str, cause: str) -> None:
    task = command(*argv, cwd=cwd)

    report = zone.actions["command"].start(task)

    assert report is not None
    assert (report.verdict, report.kind, report.message) == (Verdict.FAILED, "start-refused", cause)


def test_environment_is_small_and_stdin_empty_when_command_runs(zone: ProcessBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the daemon's own environment reaches a user's command."""
    monkeypatch.setenv("DAEMON_SECRET", "x")
    task = command("sh", "-c", "cat; env | cut -d= -f1 | sort | tr '\\n' ' '; exit 1", env={"MINE": "1"})
    zone.actions["command"].start(task)

    report = until_ended(zone, task)

    assert report.backend is not None
    assert set(report.backend["output"].split()) - {"_", "SHLVL"} == {"HOME", "LANG", "LOGNAME", "MINE", "PATH", "PWD", "USER"}


def test_progress_is_read_when_parser_is_named(zone: ProcessBackend) -> None:
    task = command("sh", "-c", "printf '10 %%\\r55.5 %%\\r'; exec sleep 60", progress="percent")
    zone.actions["command"].start(task)

    eventually("progress", lambda: (p := look(zone, task).progress) is not None and p.percent == 55.5)


def test_last_line_is_shown_when_no_parser_is_named(zone: ProcessBackend) -> None:
    task = command("sh", "-c", "echo copying; exec sleep 60")
    zone.actions["command"].start(task)

    eventually("message", lambda: (p := look(zone, task).progress) is not None and p.message == "copying")


def test_output_on_disk_stays_small_when_command_prints_much(zone: ProcessBackend, short_path: Path) -> None:
    loud = backend(short_path, log_bytes=65_536)
    task = command("sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x; echo; echo last; exit 1")
    loud.actions["command"].start(task)

    report = until_ended(loud, task)
    kept = [path.stat().st_size for path in (short_path / "jobs" / task.uid).glob("log*")]

    assert report.message == "exit status 1: last"
    assert 0 < sum(kept) <= 65_536


def test_zone_is_woken_when_command_ends(zone: ProcessBackend, short_path: Path) -> None:
    woken = threading.Event()
    zone.events(woken.set)
    task = command("sh", "-c", "read line < fifo", cwd=str(short_path))
    os.mkfifo(short_path / "fifo")
    zone.actions["command"].start(task)
    assert not woken.is_set()
    (short_path / "fifo").write_text("go\n")

    assert woken.wait(10)
    assert look(zone, task).verdict is Verdict.SUCCEEDED


# ---------------------------------------------------------------- cancelling and cleaning up


def test_task_is_cancelled_when_command_obeys_sigterm(zone: ProcessBackend) -> None:
    task = command("sleep", "60")
    zone.actions["command"].start(task)
    zone.actions["command"].cancel(task)
    zone.actions["command"].cancel(task)

    report = until_ended(zone, task)

    assert (report.verdict, report.cancelled) == (Verdict.FAILED, True)


@pytest.mark.parametrize("own_trap", ["trap '' TERM", "trap - TERM"])
def test_whole_group_is_killed_when_one_of_it_ignores_sigterm(zone: ProcessBackend, short_path: Path, own_trap: str) -> None:
    """Also when the command itself obeys, and only its child does not."""
    begin = f"trap '' TERM; sleep 60 & echo $! > child.new; {own_trap}; mv child.new child"
    script = f"{begin}; while :; do wait; done"
    task = command("sh", "-c", script, cwd=str(short_path))
    zone.actions["command"].start(task)
    eventually("the grandchild", (short_path / "child").exists)
    grandchild = identity.identify(int((short_path / "child").read_text()))
    assert grandchild is not None
    zone.actions["command"].cancel(task)

    report = until_ended(zone, task)

    assert report.cancelled
    eventually("the grandchild's end", lambda: not identity.alive(grandchild))


def test_command_never_runs_when_cancelled_before_start(zone: ProcessBackend, short_path: Path) -> None:
    """The intent was on disk, the daemon died before it started anything, and then the task is cancelled."""
    task = command("touch", str(short_path / "ran"))
    zone.actions["command"].cancel(task)

    report = zone.actions["command"].start(task)

    assert report is not None
    assert report.cancelled
    assert not (short_path / "ran").exists()


def test_job_directory_is_gone_when_forgotten(zone: ProcessBackend, short_path: Path) -> None:
    task = command("true")
    zone.actions["command"].start(task)
    until_ended(zone, task)
    forget(zone, task)
    forget(zone, task)

    assert list((short_path / "jobs").iterdir()) == []


def test_command_is_stopped_when_forgotten_while_running(zone: ProcessBackend, short_path: Path) -> None:
    """A task that timed out: its work must not go on."""
    task = command(*WAITS, cwd=str(short_path))
    zone.actions["command"].start(task)
    eventually("the command", (short_path / "pid").exists)
    process = identity.identify(int((short_path / "pid").read_text()))
    assert process is not None

    forget(zone, task)

    assert not identity.alive(process)


def test_forgetting_is_not_over_when_command_still_stops(short_path: Path) -> None:
    """The directory stays until nothing needs it: cleaning up raises and is tried again."""
    patient = backend(short_path, grace=60)
    task = command("sh", "-c", "trap '' TERM; echo > ready; while :; do sleep 1; done", cwd=str(short_path))
    patient.actions["command"].start(task)
    eventually("the trap", (short_path / "ready").exists)

    with pytest.raises(BackendError, match="still being stopped"):
        patient.actions["command"].forget(task)

    assert (short_path / "jobs" / task.uid).is_dir()


# ---------------------------------------------------------------- whose command


@needs_root
def test_command_has_only_its_owners_rights_when_daemon_is_root(zone: ProcessBackend, short_path: Path) -> None:
    task = command("sh", "-c", "id -u; id -g; id -G; ls -d . >/dev/null && umask; exit 1", owner=NOBODY)
    zone.actions["command"].start(task)

    report = until_ended(zone, task)

    assert report.backend is not None
    assert report.backend["output"].split() == ["65534", "65534", "65534", "0022"]
    assert (short_path / "jobs" / task.uid).stat().st_uid == 65534


@needs_root
def test_variables_of_a_user_reach_only_the_command(zone: ProcessBackend, short_path: Path) -> None:
    """The supervisor begins as root: LD_PRELOAD and the like must not be loaded into it."""
    task = command("sh", "-c", "echo $LD_PRELOAD; exec sleep 60", owner=NOBODY, env={"LD_PRELOAD": "/no/such.so"})
    zone.actions["command"].start(task)
    claim = Job(str(short_path), task.uid).claim()
    assert claim is not None

    assert b"LD_PRELOAD" not in Path(f"/proc/{claim.pid}/environ").read_bytes()
    eventually("the command's", lambda: "/no/such.so" in str(look(zone, task).progress))


@needs_root
def test_nothing_is_signalled_when_a_claim_names_a_process_of_somebody_else(zone: ProcessBackend, short_path: Path) -> None:
    """The job's directory belongs to the user, so what it says is not trusted."""
    task = command("sleep", "60", owner=NOBODY)
    with subprocess.Popen(["sleep", "60"]) as roots:
        victim = identity.identify(roots.pid)
        job = Job(str(short_path), task.uid)
        job.path.mkdir(parents=True)
        (job.path / "claim").write_bytes(msgspec.json.encode(victim))
        try:
            zone.actions["command"].cancel(task)

            assert roots.poll() is None
        finally:
            roots.kill()
    (job.path / "claim").unlink()


def test_links_are_not_followed_when_a_user_plants_one(short_path: Path) -> None:
    job = Job(str(short_path), "task-1")
    job.path.mkdir(parents=True)
    (short_path / "secret").write_text("secret")
    (job.path / "tail").symlink_to(short_path / "secret")

    with pytest.raises(OSError, match="symbolic"):
        job.tail()


def test_other_users_are_refused_when_daemon_is_not_root(zone: ProcessBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    task = command("true", owner=Owner(uid=4243, gid=4243))

    with pytest.raises(Forbidden, match="only a daemon that is root"):
        zone.admit(task)
    with pytest.raises(StartRefused, match="only a daemon that is root"):
        zone.actions["command"].start(task)


def test_commands_are_refused_when_zone_does_not_allow_them(short_path: Path) -> None:
    with pytest.raises(Forbidden, match="`run = true`"):
        backend(short_path, run=False).admit(command("true"))


def test_params_are_asked_for_when_command_is_only_tracked(zone: ProcessBackend) -> None:
    task = msgspec.structs.replace(command("true"), mode=Mode.TRACK, params=None)

    with pytest.raises(InvalidBody) as refused:
        zone.admit(task)

    assert refused.value.members[0][0] == "/params"


@pytest.mark.parametrize(
    ("params", "where"),
    [
        ({"argv": []}, "$.argv"),
        ({"argv": ["a\0b"]}, "$.argv[0]"),
        ({"argv": "sleep 1"}, "$.argv"),
        ({"argv": ["a"], "cwd": "here"}, "$.cwd"),
        ({"argv": ["a"], "env": {"A=B": "1"}}, "$.env"),
        ({"argv": ["a"], "progress": "cp"}, "$.progress"),
        ({"argv": ["a"], "shell": True}, "shell"),
    ],
)
def test_params_are_refused_by_name_when_wrong(params: dict[str, object], where: str) -> None:
    with pytest.raises(msgspec.ValidationError) as refused:
        msgspec.convert(params, CommandParams)

    assert where in str(refused.value)
