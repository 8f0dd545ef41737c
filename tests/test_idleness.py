"""A daemon that may end when nobody needs it: real daemons on a socket that the test keeps, as systemd does."""

import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from task_client import Client
from task_daemon.clock import FakeClock
from task_daemon.core.errors import Draining
from task_daemon.core.ports import Backlog
from task_daemon.idleness import Idleness
from tests.daemons import Daemon
from tests.waiting import PATIENCE

SECONDS = 30.0
CODE = (
    "import os, sys\n"
    "os.dup2(int(sys.argv.pop(1)), 3)\n"
    "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1')\n"
    "from task_daemon.main import main\n"
    "sys.exit(main())\n"
)


class Activated:
    """Starts daemons on a listening socket that stays."""

    def __init__(self, home: Path, listening: socket.socket) -> None:
        self.home = home
        self.socket = str(home / "s")
        self.listening = listening
        self.running: list[subprocess.Popen[bytes]] = []

    def start(self, config: str) -> subprocess.Popen[bytes]:
        file = self.home / "c.toml"
        file.write_text(config)
        number = self.listening.fileno()
        command = [sys.executable, "-c", CODE, str(number), f"--workspace={self.home / 'w'}", f"--config-file={file}"]
        with (self.home / "log").open("ab") as log:
            self.running.append(subprocess.Popen(command, pass_fds=[number], stdout=log, stderr=log))
        return self.running[-1]


@pytest.fixture
def activated(short_path: Path) -> Iterator[Activated]:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(short_path / "s"))
        listening.listen(16)
        activated = Activated(short_path, listening)
        yield activated
        for process in activated.running:
            process.kill()
            process.wait(PATIENCE)


def test_idle_daemon_ends_with_0_and_the_next_connection_finds_another(activated: Activated) -> None:
    config = "[daemon]\nidle_exit = 0.2\n"
    first = activated.start(config)
    assert first.wait(PATIENCE) == 0
    assert "idle for 0.2 s" in (activated.home / "log").read_text()

    with socket.socket(socket.AF_UNIX) as waiting:  # it waits in the socket, and systemd would start a daemon now
        waiting.connect(activated.socket)
        waiting.settimeout(PATIENCE)
        second = activated.start(config)
        waiting.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert waiting.recv(12) == b"HTTP/1.1 200"
    assert second.wait(PATIENCE) == 0


def test_daemon_with_a_live_task_stays_until_its_end_is_told(activated: Activated) -> None:
    scenario = '[zones.sim]\nbackend = "simulated"\npoll_interval = 0.1\nscenario = [{ id = "*", finish_after = 1.0 }]\n'
    process = activated.start(f"[daemon]\nidle_exit = 0.2\n{scenario}")
    with Client(activated.socket) as client:
        uid = client.register("disk", "backup", "sim").uid
    assert process.wait(PATIENCE) == 0

    activated.start(scenario)
    with Client(activated.socket) as client:
        assert client.get(uid).state == "succeeded"


def test_daemon_that_listens_by_itself_never_ends_for_idleness(short_path: Path) -> None:
    """Nobody would start it again. What it would have to look at is asked of an activated one, above."""
    with Daemon(short_path, "[daemon]\nidle_exit = 0.01\n") as daemon:
        for _ in range(20):
            with daemon.client() as client:
                assert client.ping()
        assert daemon.ended is None


# --------------------------------------------------------------------------- when, with time that is moved by hand


class House:
    """Engine and server as far as idleness asks them."""

    def __init__(self) -> None:
        self.facts: dict[str, object] = {"live": 0, "untidy": 0, "loading": 0}
        self.outbox: dict[str, object] = {"in_memory": 0, "in_flight": 0}
        self.pending = 0
        self.connections = self.accepted = 0
        self.open = True
        self.refusing = False

    def status(self) -> dict[str, object]:
        return {**self.facts, "outbox": self.outbox}

    async def backlog(self) -> Backlog:
        if self.refusing:
            raise Draining("the store is busy with something else")
        return Backlog(pending=self.pending)

    def close_door(self) -> None:
        self.open = False


@pytest.fixture
def house() -> House:
    return House()


async def pass_by(clock: FakeClock, seconds: int) -> None:
    for _ in range(seconds):
        for _turn in range(5):
            await asyncio.sleep(0)
        clock.advance(1.0)
    for _turn in range(5):
        await asyncio.sleep(0)


async def test_door_is_closed_before_the_end_when_the_time_is_over(house: House, clock: FakeClock) -> None:
    door: list[bool] = []
    idleness = Idleness(house, house, clock, SECONDS, lambda: door.append(house.open))  # type: ignore[arg-type]
    running = asyncio.create_task(idleness.run())
    await pass_by(clock, 29)
    assert not running.done()
    await pass_by(clock, 2)
    await running
    assert door == [False]


@pytest.mark.parametrize("need", ["live", "untidy", "loading", "in_memory", "in_flight", "pending", "connections", "refusing"])
async def test_daemon_stays_while_it_is_needed_and_for_the_time_after(house: House, clock: FakeClock, need: str) -> None:
    ends: list[None] = []
    idleness = Idleness(house, house, clock, SECONDS, lambda: ends.append(None))  # type: ignore[arg-type]
    running = asyncio.create_task(idleness.run())
    where = next(place for place in (house.facts, house.outbox, vars(house)) if need in place)
    where[need] = 1
    await pass_by(clock, 100)
    where[need] = 0
    await pass_by(clock, 5)
    assert ends == []
    await pass_by(clock, 31)
    await running
    assert ends == [None]


async def test_short_connection_between_two_looks_counts(house: House, clock: FakeClock) -> None:
    running = asyncio.create_task(Idleness(house, house, clock, SECONDS, lambda: None).run())  # type: ignore[arg-type]
    await pass_by(clock, 25)
    house.accepted += 1
    await pass_by(clock, 25)
    assert not running.done()
    await pass_by(clock, 7)
    await running
