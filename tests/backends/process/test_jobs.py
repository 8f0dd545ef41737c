"""The directory that a command and its supervisor leave behind, also when something is wrong with it."""

import os
from pathlib import Path

import pytest

from task_daemon.backends.process.account import account_of
from task_daemon.backends.process.jobs import Job
from task_daemon.core.errors import BackendError
from task_daemon.core.model import Owner


@pytest.fixture
def job(short_path: Path) -> Job:
    made = Job(str(short_path), "task-1")
    made.make(account_of(Owner(uid=os.geteuid(), gid=os.getegid())))
    return made


def test_directory_is_for_its_owner_only(job: Job) -> None:
    assert job.path.stat().st_mode & 0o777 == 0o700
    assert job.path.parent.stat().st_mode & 0o777 == 0o700


def test_start_is_tried_again_when_supervisor_dies_at_once(job: Job) -> None:
    """An order it cannot read: it leaves without a claim, so nothing ran and nothing is lost."""
    with pytest.raises(BackendError, match="did not get as far as taking the job"):
        job.supervise({}, account_of(Owner(uid=os.geteuid(), gid=os.getegid())), wait=10.0)

    assert job.claim() is None


def test_job_is_taken_only_once_when_cancelled_before_its_start(job: Job) -> None:
    assert job.claim_as_cancelled()
    assert not job.claim_as_cancelled()
    claim = job.claim()
    assert claim is not None
    assert claim.cancelled
    assert [path.name for path in job.path.iterdir()] == ["claim"]


@pytest.mark.parametrize("text", ["", "[]", '{"pid": -1}', '{"pid": 99999999}', "\0"])
def test_claim_that_cannot_be_read_names_nobody(job: Job, text: str) -> None:
    (job.path / "claim").write_text(text)
    claim = job.claim()

    assert claim is not None
    assert (claim.pid, claim.boot, claim.cancelled) == (0, "", False)


def test_end_that_cannot_be_read_is_a_failure(job: Job) -> None:
    (job.path / "end").write_text("{")
    end = job.end()

    assert end is not None
    assert end.error is not None


def test_reading_does_not_wait_when_a_pipe_lies_there(job: Job) -> None:
    os.mkfifo(job.path / "tail")

    assert job.tail() == ""
