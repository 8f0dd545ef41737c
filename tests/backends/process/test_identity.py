"""A pid alone says nothing: start time and boot belong to it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from task_daemon.backends.process import identity
from task_daemon.backends.process.identity import Identity


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as made:
        yield made
        made.kill()


def of(process: subprocess.Popen[bytes]) -> Identity:
    found = identity.identify(process.pid)
    assert found is not None
    return found


def test_process_is_alive_until_it_ends(process: subprocess.Popen[bytes]) -> None:
    me = of(process)
    assert identity.alive(me)
    process.kill()

    assert identity.wait(me, 10)
    assert not identity.alive(me)  # a zombie: nobody has asked for its status yet
    process.wait(10)
    assert not identity.alive(me)


@pytest.mark.parametrize("other", [{"start": 1}, {"boot": "another"}])
def test_process_is_not_signalled_when_pid_was_used_again(process: subprocess.Popen[bytes], other: dict[str, int]) -> None:
    stranger = replace(of(process), **other)

    assert not identity.alive(stranger)
    assert not identity.send(stranger, signal.SIGKILL, os.getuid())
    assert process.poll() is None


def test_process_is_not_signalled_when_it_belongs_to_another(process: subprocess.Popen[bytes]) -> None:
    assert not identity.send(of(process), signal.SIGKILL, os.getuid() + 1)
    assert process.poll() is None


def test_exit_status_is_left_alone_when_child_still_runs(process: subprocess.Popen[bytes]) -> None:
    identity.reap(of(process))
    process.kill()

    assert process.wait(10) == -signal.SIGKILL


@pytest.mark.parametrize("pid", [0, identity.PID_MAX])
def test_nothing_is_found_when_there_is_no_such_process(pid: int) -> None:
    nobody = Identity(pid, 1, identity.boot_id())

    assert identity.facts(pid) is None
    assert identity.pin(pid) is None
    assert identity.wait(nobody, 0)


def test_name_with_spaces_and_parentheses_is_read_right() -> None:
    """The name in /proc/PID/stat may hold anything."""
    code = "open('/proc/self/comm', 'w').write('a) Z 1 2 ('); print(flush=True); input()"
    argv = [sys.executable, "-c", code]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()

        assert identity.alive(of(process))
