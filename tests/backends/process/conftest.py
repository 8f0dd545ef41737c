"""A zone of processes that leaves no process behind."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from task_daemon.backends.process import ProcessBackend
from task_daemon.backends.process.identity import alive, reap, wait
from task_daemon.backends.process.jobs import Job
from tests.backends.process.made import backend


@pytest.fixture
def zone(short_path: Path) -> Iterator[ProcessBackend]:
    made = backend(short_path, grace=0.3)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def nothing_left_running(short_path: Path) -> Iterator[None]:
    """Ends what a test (failed or not) left running below its directory, by pid."""
    yield
    jobs = short_path / "jobs"
    for name in os.listdir(jobs) if jobs.is_dir() else []:
        job = Job(str(short_path), name)
        claim = job.claim()
        for process in (claim.identity if claim and claim.pid else None, job.child()):
            if process is None:
                continue
            if alive(process):
                os.kill(process.pid, signal.SIGKILL)
            wait(process, 5)
            reap(process)
