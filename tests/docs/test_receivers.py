"""The receivers of the how-to do what it says: told once, told again, told a lie."""

import os
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.daemons import Daemon
from tests.waiting import eventually

DOCS = Path(__file__).parents[2] / "docs"
PROGRAMS = sorted((DOCS / "receivers").glob("with_*.py"))
KEY = "whsec_" + "c2VjcmV0LWZvci10aGUtdGVzdHMtb2YtdGhlLWRvY3M="
TRIES = "schedule = [0, 0.2, 0.2, 0.5, 0.5, 1, 1, 1, 2, 2, 2, 5]"


@contextmanager
def running(program: Path, port: int, store: Path) -> Iterator[None]:
    command = [sys.executable, str(program), str(port), str(store)]
    receiver = subprocess.Popen(
        command, env={**os.environ, "CALLBACK_KEY": KEY}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        yield
    finally:
        receiver.kill()
        receiver.communicate(timeout=10)


def disks(store: Path) -> list[tuple[str, str]]:
    connection = sqlite3.connect(store)
    found = connection.execute("SELECT id, state FROM disk").fetchall()
    connection.close()
    return found


def test_the_page_shows_every_program_as_it_is() -> None:
    page = (DOCS / "receivers.md").read_text()

    assert len(PROGRAMS) == 3
    assert [program.name for program in PROGRAMS if f"```python\n{program.read_text()}```\n" not in page] == []


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_a_receiver_works_once_for_each_callback_and_never_for_a_forged_one(
    program: Path, short_path: Path, unused_tcp_port: int
) -> None:
    key, store, url = short_path / "key", short_path / "disks.db", f"http://127.0.0.1:{unused_tcp_port}/hook"
    key.write_text(f"{KEY}\n")
    key.chmod(0o600)
    config = f'[callbacks]\n{TRIES}\n[callbacks.keys]\ndefault = "{key}"'
    with running(program, unused_tcp_port, store), Daemon(short_path, config) as daemon, daemon.client() as client:
        task = client.register("disk-1", "command", "local", params={"argv": ["true"]}, callback=url)
        eventually("it is told", lambda: client.callbacks(task.uid, state="delivered"), 40)
        (callback,) = client.callbacks(task.uid)
        tries = len(callback.tries)
        client.replay(callback.id)
        eventually(
            "it is told again", lambda: any(len(each.tries) > tries for each in client.callbacks(task.uid, state="delivered"))
        )

        forged = urllib.request.Request(url, b'{"data": {"task": {"id": "disk-2", "state": "succeeded"}}}', {"webhook-id": "x"})
        with pytest.raises(urllib.error.HTTPError, match="401") as refused:
            urllib.request.urlopen(forged, timeout=20)
        refused.value.close()

    assert disks(store) == [("disk-1", "succeeded")]
