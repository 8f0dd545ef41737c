"""Ends are announced by real processes; nothing stays open afterwards."""

import os
import subprocess
import threading

from task_daemon.backends.process import identity
from task_daemon.backends.process.ends import Ends
from tests.waiting import eventually


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_nothing_stays_open_when_closed_while_processes_run() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        before = descriptors()
        ends = Ends("local")
        ends.start(lambda: None)
        me = identity.identify(process.pid)
        assert me is not None
        ends.add(me)
        ends.add(me)
        ends.close()

        assert descriptors() == before
        assert process.poll() is None
        process.kill()


def test_wake_comes_at_once_when_process_has_ended_already() -> None:
    woken = threading.Event()
    ends = Ends("local")
    ends.start(woken.set)
    with subprocess.Popen(["true"]) as process:
        me = identity.identify(process.pid)
        assert me is not None
        eventually("its end", lambda: not identity.alive(me))
        ends.add(me)

    assert woken.wait(10)
    ends.close()


def test_each_end_wakes_when_several_processes_are_watched() -> None:
    wakes: list[int] = []
    ends = Ends("local")
    ends.start(lambda: wakes.append(1))
    processes = [subprocess.Popen(["sleep", "60"]) for _ in range(3)]
    for process in processes:
        me = identity.identify(process.pid)
        assert me is not None
        ends.add(me)
    for number, process in enumerate(processes, 1):
        process.kill()
        process.wait(10)
        eventually(f"wake {number}", lambda number=number: len(wakes) >= number)  # type: ignore[misc]
    ends.close()


def test_nothing_is_watched_when_nobody_listens() -> None:
    before = descriptors()
    ends = Ends("local")
    me = identity.identify(os.getpid())
    assert me is not None
    ends.add(me)
    ends.close()

    assert descriptors() == before
