"""Nothing is run twice, and nothing ends because the daemon does: with real supervisors and real SIGKILLs."""

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from task_daemon.backends.process import ProcessBackend, identity
from task_daemon.backends.process.account import account_of
from task_daemon.backends.process.jobs import Job
from task_daemon.core import transitions
from task_daemon.core.errors import WorkGone
from task_daemon.core.model import State, Verdict
from tests.backends.process.made import backend, command, forget, look, until_ended
from tests.waiting import eventually

WAITS = ("sh", "-c", "echo $$ > pid.new; mv pid.new pid; exec sleep 60")
DAEMON = """
import pathlib, sys
from tests.backends.process.made import backend, command
directory, *argv = sys.argv[1:]
zone = backend(pathlib.Path(directory), grace=0.3)
zone.events(lambda: None)
print("ready", flush=True)
zone.actions["command"].start(command(*argv, cwd=directory))
print("started", flush=True)
sys.stdin.read()
"""


def test_i2_command_is_adopted_when_started_again(zone: ProcessBackend, short_path: Path) -> None:
    task = command("sh", "-c", "echo ran >> runs; exec sleep 60", cwd=str(short_path))
    first = zone.actions["command"].start(task)
    second = backend(short_path).actions["command"].start(task)
    eventually("a run", lambda: (short_path / "runs").exists() and (short_path / "runs").read_text())

    assert first is not None
    assert second is not None
    assert (first.adopted, second.adopted) == (False, True)
    assert (short_path / "runs").read_text() == "ran\n"


def test_i2_command_runs_once_when_many_supervisors_start_together(zone: ProcessBackend, short_path: Path) -> None:
    """A daemon that died between starting a supervisor and its claim, and its successor that starts another."""
    task = command("sh", "-c", "echo ran >> runs", cwd=str(short_path))
    account = account_of(task.owner)
    job = Job(str(short_path), task.uid)
    job.make(account)
    order = {
        "argv": ["sh", "-c", "echo ran >> runs"],
        "cwd": str(short_path),
        "env": account.environment(),
        "log_bytes": 65_536,
        "grace": 1,
    }
    threads = [threading.Thread(target=job.supervise, args=(order, account, 10.0)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert until_ended(zone, task).verdict is Verdict.SUCCEEDED
    assert (short_path / "runs").read_text() == "ran\n"
    forget(zone, task)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)  # neither the losers nor the winner left a zombie


def test_i2_work_is_gone_when_supervisor_died_without_an_end(zone: ProcessBackend, short_path: Path) -> None:
    task = command(*WAITS, cwd=str(short_path))
    zone.actions["command"].start(task)
    eventually("the command", (short_path / "pid").exists)
    job = Job(str(short_path), task.uid)
    claim, child = job.claim(), job.child()
    assert claim is not None
    assert child is not None
    os.kill(claim.pid, signal.SIGKILL)
    eventually("the supervisor's end", lambda: not identity.alive(claim.identity))

    assert look(zone, task).verdict is Verdict.GOING_ON  # the command itself still runs

    os.kill(child.pid, signal.SIGKILL)
    report = until_ended(zone, task)
    assert (report.verdict, report.certain) == (Verdict.VANISHED, True)
    with pytest.raises(WorkGone, match="supervisor was killed"):
        zone.actions["command"].start(task)


def test_command_is_killed_when_cancelled_without_its_supervisor(zone: ProcessBackend, short_path: Path) -> None:
    task = command(*WAITS, cwd=str(short_path))
    zone.actions["command"].start(task)
    eventually("the command", (short_path / "pid").exists)
    job = Job(str(short_path), task.uid)
    claim, child = job.claim(), job.child()
    assert claim is not None
    assert child is not None
    os.kill(claim.pid, signal.SIGKILL)
    eventually("the supervisor's end", lambda: not identity.alive(claim.identity))

    zone.actions["command"].cancel(task)

    eventually("the command's end", lambda: not identity.alive(child))


def test_f12_task_is_lost_at_once_when_machine_was_restarted(zone: ProcessBackend, short_path: Path) -> None:
    task = command("true")
    zone.actions["command"].start(task)
    until_ended(zone, task)
    supervisor = Job(str(short_path), task.uid).claim()
    assert supervisor is not None
    assert identity.wait(supervisor.identity, 10)
    identity.reap(supervisor.identity)  # here it is a child of ours; after a restart nobody would be left
    claim = short_path / "jobs" / task.uid / "claim"
    claim.write_text(json.dumps({**json.loads(claim.read_text()), "boot": "another"}))
    (claim.parent / "end").unlink()

    change = transitions.apply(task, look(zone, task), now=1.0)

    assert change is not None
    assert change.task.state is State.LOST
    assert change.task.error is not None
    assert change.task.error.message == "the machine was restarted while the command ran"


@pytest.mark.crash
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_i9_command_goes_on_and_is_adopted_when_daemon_is_killed(
    zone: ProcessBackend, short_path: Path, number: signal.Signals
) -> None:
    """The signal goes to the daemon's whole process group, as a terminal or a careless unit would send it."""
    script = "echo ran >> runs; read line < fifo; echo end >> runs; exit 5"
    os.mkfifo(short_path / "fifo")
    argv = [sys.executable, "-c", DAEMON, str(short_path), "sh", "-c", script]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as daemon:
        assert daemon.stdout is not None
        assert [daemon.stdout.readline(), daemon.stdout.readline()] == [b"ready\n", b"started\n"]
        os.killpg(daemon.pid, number)
        daemon.wait(10)
    task = command("sh", "-c", script, cwd=str(short_path))

    report = zone.actions["command"].start(task)
    assert report is not None
    assert (report.verdict, report.adopted) == (Verdict.GOING_ON, True)
    (short_path / "fifo").write_text("go\n")

    assert until_ended(zone, task).message == "exit status 5"
    assert (short_path / "runs").read_text() == "ran\nend\n"


@pytest.mark.crash
@pytest.mark.parametrize("milliseconds", [0, 3, 8, 13, 18, 30])
def test_i2_command_runs_exactly_once_when_daemon_is_killed_while_starting_it(
    zone: ProcessBackend, short_path: Path, milliseconds: int
) -> None:
    script = "echo ran >> runs"
    argv = [sys.executable, "-c", DAEMON, str(short_path), "sh", "-c", script]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as daemon:
        assert daemon.stdout is not None
        assert daemon.stdout.readline() == b"ready\n"
        select.select([daemon.stdout], [], [], milliseconds / 1000)  # until it has started the command, but no longer
        os.killpg(daemon.pid, signal.SIGKILL)
    task = command("sh", "-c", script, cwd=str(short_path))
    zone.actions["command"].start(task)

    assert until_ended(zone, task).verdict is Verdict.SUCCEEDED
    assert (short_path / "runs").read_text() == "ran\n"


def test_i9_command_goes_on_when_zone_is_closed(short_path: Path) -> None:
    first = backend(short_path)
    first.events(lambda: None)
    task = command("sleep", "60")
    first.actions["command"].start(task)
    first.close()
    second = backend(short_path)

    assert look(second, task).verdict is Verdict.GOING_ON


def test_start_is_quick_when_command_is_small(zone: ProcessBackend) -> None:
    """A poll starts up to sixteen; measured about 25 ms each."""
    tasks = [command("true", uid=f"task-{n}") for n in range(5)]
    begin = time.monotonic()
    for task in tasks:
        zone.actions["command"].start(task)

    assert time.monotonic() - begin < 5
    for task in tasks:
        assert until_ended(zone, task).verdict is Verdict.SUCCEEDED
