"""What the service manager is told, over a real datagram socket."""

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from task_daemon.clock import FakeClock
from task_daemon.core.model import Delivery
from task_daemon.core.ports import Handlers, Idle, Outcome
from task_daemon.engine.local.engine import LocalEngine
from task_daemon.notify_systemd import inherited_socket, notify, watchdog_seconds
from tests.daemons import Daemon


@pytest.fixture
def manager(short_path: Path) -> Iterator[socket.socket]:
    """Stands where systemd listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(short_path / "notify"))
        listening.settimeout(20)
        yield listening


def test_state_arrives_when_the_manager_listens_at_a_path(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", manager.getsockname())

    assert notify("READY=1")
    assert manager.recv(100) == b"READY=1"


def test_state_arrives_when_the_manager_listens_at_an_abstract_address(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"task-daemon-test{short_path.name}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0{name}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")

        assert notify("STOPPING=1")
        assert listening.recv(100) == b"STOPPING=1"


def test_nothing_is_sent_when_no_manager_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)

    assert not notify("READY=1")


def test_nothing_is_raised_when_the_manager_is_gone(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(short_path / "nobody"))

    assert not notify("READY=1")


def test_manager_hears_when_the_daemon_serves_and_when_it_stops(manager: socket.socket, short_path: Path) -> None:
    with Daemon(short_path, env={"NOTIFY_SOCKET": manager.getsockname()}) as daemon:
        assert manager.recv(100) == b"READY=1"
        with daemon.client() as client:
            assert client.ping(), "ready was said too early"
        assert daemon.stop() == 0
        assert manager.recv(100) == b"STOPPING=1"


def test_manager_is_not_told_ready_when_the_workspace_is_taken(manager: socket.socket, short_path: Path) -> None:
    with Daemon(short_path):
        assert Daemon(short_path, env={"NOTIFY_SOCKET": manager.getsockname()}).run() == 3
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(100)


def test_daemon_serves_when_the_manager_is_gone(short_path: Path) -> None:
    with Daemon(short_path, env={"NOTIFY_SOCKET": str(short_path / "nobody")}) as daemon:
        daemon.signal(signal.SIGTERM)
        assert daemon.wait() == 0


def test_watchdog_is_fed_while_the_daemon_goes_on(manager: socket.socket, short_path: Path) -> None:
    with Daemon(short_path, env={"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "30000"}):
        assert [manager.recv(100) for _ in range(4)] == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1", b"WATCHDOG=1"]


def test_watchdog_is_not_fed_when_another_process_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "30000")
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert watchdog_seconds() is None
    monkeypatch.delenv("WATCHDOG_PID")
    assert watchdog_seconds() == 0.03


def test_inherited_socket_is_not_ours_when_another_process_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_PID", "1")
    monkeypatch.setenv("LISTEN_FDS", "1")
    assert inherited_socket() is None
    assert "LISTEN_FDS" not in os.environ


async def test_engine_gives_no_sign_of_life_while_its_store_hangs(short_path: Path, clock: FakeClock) -> None:
    engine = LocalEngine(short_path, clock)
    handlers = Handlers(lambda _beat: Idle(), _never_called, lambda _tasks: None, lambda *_: None, _no_fault)
    await engine.open({}, handlers)
    gate = threading.Event()
    hanging = asyncio.ensure_future(engine.store.write(lambda _tables: gate.wait(60)))
    sign = asyncio.ensure_future(engine.alive())
    await asyncio.wait({sign}, timeout=0.05)
    assert not sign.done()
    gate.set()
    await sign
    await hanging
    await engine.close()


async def _never_called(delivery: Delivery) -> Outcome:
    raise AssertionError(delivery)


def _no_fault(error: BaseException) -> None:
    raise error
