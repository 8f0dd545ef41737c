"""How soon the daemon is there: what costs is what is imported, and that does not depend on the load of the machine."""

import re
from pathlib import Path

import pytest

from tests.daemons import Daemon

ON_DEMAND = {
    "h11", "keystoneauth1", "prometheus_client", "qemu.qmp", "requests", "task_client", "task_daemon.api.openapi",
    "task_daemon.api.metrics", "task_daemon.backends.storage", "task_daemon.virtual",
}  # fmt: skip


@pytest.fixture
def daemon(short_path: Path) -> Daemon:
    """It tells what it imports."""
    return Daemon(short_path, '[zones.sim]\nbackend = "simulated"\n', env={"PYTHONVERBOSE": "1"})


def loaded(daemon: Daemon) -> set[str]:
    return set(re.findall(r"(?m)^import '([\w.]+)' #", daemon.log.read_text()))


def test_first_answers_load_nothing_that_only_some_ask_for(daemon: Daemon) -> None:
    with daemon, daemon.client() as client:
        task = client.register("disk-1", "simulated", "sim")

        assert client.get(task.uid).id == "disk-1"
        assert "task_daemon.backends.simulated" in loaded(daemon)
        assert loaded(daemon) & ON_DEMAND == set()


def test_metrics_and_the_contract_are_loaded_when_somebody_asks(daemon: Daemon) -> None:
    with daemon, daemon.client() as client:
        assert "task_daemon_tasks" in client.metrics()
        assert client.info()["version"]

        assert loaded(daemon) & ON_DEMAND == {"prometheus_client", "task_daemon.api.metrics"}
