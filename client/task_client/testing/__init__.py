"""For registrants' own tests: a pytest plugin with the fixture `task_daemon`, a real daemon whose time is moved by hand.

    def test_region_is_told(task_daemon):
        task_daemon.scenario(id="disk-*", finish_after=3 * 3600)
        task_daemon.receiver.answer(500, 500)
        task = task_daemon.client.register("disk-7", "backup", "zone1", callback=task_daemon.receiver.url)
        task_daemon.advance(hours=3, minutes=1)
        assert [call.answered for call in task_daemon.receiver.calls] == [500, 500, 200]

Installed with the distribution, so pytest finds it by itself; without the fixture it imports nothing but pytest.
"""

import shutil
import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from task_client.testing.daemon import TaskDaemon as TaskDaemon
    from task_client.testing.receiver import Call as Call
    from task_client.testing.receiver import Receiver as Receiver

_HOME = {"TaskDaemon": "daemon", "Receiver": "receiver", "Call": "receiver"}


@pytest.fixture
def task_daemon_options() -> dict[str, Any]:
    """To be overridden: the arguments of `TaskDaemon`, such as `zones` and `poll_interval`."""
    return {}


@pytest.fixture
def task_daemon(task_daemon_options: dict[str, Any]) -> "Iterator[TaskDaemon]":
    """A daemon of this test alone, and a receiver of callbacks."""
    from task_client.testing.daemon import TaskDaemon

    home = Path(tempfile.mkdtemp(prefix="td-"))  # not tmp_path: the paths of sockets must be short
    try:
        with TaskDaemon(home, **task_daemon_options) as running:
            yield running
    finally:
        shutil.rmtree(home, ignore_errors=True)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
