"""taskctl events of a real daemon: what happened, what happens, and how far the work is."""

import itertools
import json
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from tests.daemons import Daemon
from tests.waiting import eventually

CONFIG = """
[zones.sim]
backend = "simulated"
poll_interval = 0.1
scenario = [{ id = "long*", finish_after = 60 }, { finish_after = 0 }]
"""
PROGRAM = [sys.executable, "-c", "from task_client.cli import main; main()"]
INTERRUPTED = 130


@pytest.fixture
def daemon(short_path: Path) -> Iterator[Daemon]:
    with Daemon(short_path, CONFIG) as running:
        yield running


@contextmanager
def followed(daemon: Daemon, *words: str) -> Iterator[IO[str]]:
    """What `taskctl events` prints; it is interrupted as a user does, and ends as documented."""
    command = [*PROGRAM, "--socket", daemon.socket, "events", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        try:
            yield program.stdout
            program.send_signal(signal.SIGINT)
            assert program.wait(30) == INTERRUPTED
        finally:
            program.kill()


def test_progress_is_told_between_the_events_of_the_task(daemon: Daemon) -> None:
    with daemon.client() as client:
        client.register("long-1", "backup", "sim")
        uid = client.register("long-2", "backup", "sim").uid

        with followed(daemon, uid, "--progress") as printed:
            rows = [line.rstrip("\n").split("\t") for line in itertools.islice(printed, 4)]

        assert rows[0][3] == "task.registered"
        assert {row[2] for row in rows} == {uid}
        moving = next(row for row in rows if row[3] == "progress")
        assert moving[0] == "-"
        assert json.loads(moving[4])["progress"]["percent"] >= 0


def test_only_what_is_new_is_followed_across_a_restart_when_asked_for_the_latest(daemon: Daemon) -> None:
    with daemon.client() as client:
        old = client.wait(client.register("old", "backup", "sim").uid).uid

        with followed(daemon, "--after", "latest", "--follow", "--format", "{seq} {type} {uid}") as printed:
            numbers = itertools.count()

            def told() -> bool:
                client.register(f"new-{next(numbers)}", "backup", "sim")
                return bool(select.select([printed], [], [], 0.5)[0])

            eventually("the first new event is told", told)
            daemon.kill()
            daemon.start()
            last = client.register("last", "backup", "sim").uid
            lines = [*itertools.takewhile(lambda line: not line.endswith(f" task.succeeded {last}\n"), printed)]

        assert any(line.endswith(f" task.registered {last}\n") for line in lines)
        assert not any(line.endswith(f" {old}\n") for line in lines)
        assert [line.split()[0] for line in lines] == sorted({line.split()[0] for line in lines}, key=int)


def test_the_place_to_begin_is_a_number_or_the_latest(daemon: Daemon) -> None:
    command = [*PROGRAM, "--socket", daemon.socket, "events", "--after", "newest"]

    done = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert done.returncode == 2
    assert "'newest' is neither the number of an event nor `latest`" in done.stderr
