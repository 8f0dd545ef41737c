"""The tutorial is done, block by block, as a newcomer does it; the backend of its how-to is used as a plug-in."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from task_client.daemon import stop_daemon
from task_client.errors import DaemonUnreachable
from tests.daemons import Daemon
from tests.waiting import eventually

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```", (DOCS / page).read_text())


def test_the_tutorial_works_from_end_to_end(short_path: Path, unused_tcp_port: int) -> None:
    (hook,) = blocks("tutorial.md", "python")
    (short_path / "hook.py").write_text(hook)
    script = "set -eu\n" + "\n".join(blocks("tutorial.md", "sh")).replace("8080", str(unused_tcp_port))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "TASK_DAEMON_WORKSPACE_ROOT": str(short_path)}
    try:
        done = subprocess.run(
            ["bash", "-c", script], cwd=short_path, env=environment, capture_output=True, text=True, timeout=100, check=False
        )
    finally:
        try:
            stop_daemon(short_path / "task_daemon" / "task_daemon.socket")
            left_behind = True
        except DaemonUnreachable:
            left_behind = False

    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "task.succeeded nap\n" in done.stdout
    for word in ("task.registered", "task.succeeded", "delivered"):
        assert word in done.stdout
    assert not left_behind


@pytest.fixture
def arrivals(short_path: Path) -> Path:
    """The how-to's backend, installed as its distribution would be."""
    folder = short_path / "lib"
    about = folder / "arrivals-1.0.dist-info"
    about.mkdir(parents=True)
    (code,) = blocks("writing-a-backend.md", "python")
    package, _ = blocks("writing-a-backend.md", "toml")
    (folder / "arrivals.py").write_text(code)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: arrivals\nVersion: 1.0\n")
    points = re.search(r'(?s)entry-points\."(.*?)"\]\n(\w+) = "(.*?)"', package)
    assert points is not None
    (about / "entry_points.txt").write_text(f"[{points[1]}]\n{points[2]} = {points[3]}\n")
    return folder


def test_the_backend_of_the_how_to_is_a_backend(short_path: Path, arrivals: Path) -> None:
    inbox = short_path / "inbox"
    inbox.mkdir()
    _, config = blocks("writing-a-backend.md", "toml")
    config = config.replace("/srv/inbox", str(inbox)) + "poll_interval = 0.1\n"
    with Daemon(short_path, config, env={"PYTHONPATH": str(arrivals)}) as daemon, daemon.client() as client:
        good, bad, late = (client.register(name, "arrival", "inbox").uid for name in ("good", "bad", "late"))
        eventually("it is watched", lambda: client.get(late).state == "running")
        (inbox / "good").touch()
        (inbox / "bad.err").touch()
        assert client.wait(good, 20).state == "succeeded"
        failed = client.wait(bad, 20)
        assert failed.error is not None
        assert (failed.state, failed.error.message) == ("failed", "bad.err is there")
        inbox.rename(short_path / "gone")
        eventually(
            "the zone is ill", lambda: client.zones()[0]["state"] == "unreachable" or client.zones()[1]["state"] == "unreachable"
        )
        assert client.get(late).state == "running"
