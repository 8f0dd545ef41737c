"""Nothing is kept of what a misbehaving monitor sent: no descriptor, no thread, no asyncio task, no memory."""

import asyncio
import contextlib
import gc
import logging
import os
import resource
import socket
import threading
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from task_daemon.backends.storage.fake_qmp import CROWD, GREETINGS, REPLIES, FakeQmp, flood
from task_daemon.backends.storage.qmp import QmpConnection, _peer_of
from task_daemon.core.errors import BackendError
from tests.daemons import Daemon
from tests.receivers import Receiver
from tests.waiting import eventually

MANNERS = [("greeting", name) for name in sorted(GREETINGS)] + [("reply", name) for name in sorted(REPLIES)]
IDS = [f"{where}: {name}" for where, name in MANNERS]
BAD_ANSWERS = 1000
GROWTH = 200 * 1024  # bytes


@pytest.fixture
def fake(short_path: Path) -> Iterator[FakeQmp]:
    with FakeQmp(str(short_path / "q")) as server:
        yield server


@pytest.fixture
def connect(short_path: Path) -> Iterator[Callable[[float], QmpConnection]]:
    made: list[QmpConnection] = []

    def make(timeout: float) -> QmpConnection:
        made.append(QmpConnection(str(short_path / "q"), timeout))
        return made[-1]

    yield make
    for connection in made:
        connection.close()


def ask(connection: QmpConnection) -> bool:
    """Whether there was a good answer."""
    try:
        connection.execute("query-jobs", expect=list)
    except BackendError:
        return False
    return True


def held(connection: QmpConnection) -> dict[str, Any]:
    """What this process holds, the monitor's own end included; nothing that is only waiting to be collected."""
    gc.collect()
    assert connection._loop is not None
    return {
        "descriptors": sorted(os.readlink(f"/proc/self/fd/{fd}").split(":")[0] for fd in _descriptors()),
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "tasks": Counter(str(task.get_coro()).split(" at ")[0] for task in asyncio.all_tasks(connection._loop)),
    }


def _descriptors() -> list[str]:
    """Without the one that lists them."""
    return [fd for fd in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{fd}")]


@pytest.mark.parametrize(("where", "manner"), MANNERS, ids=IDS)
def test_nothing_is_held_after_bad_answers(
    where: str, manner: str, fake: FakeQmp, connect: Callable[[float], QmpConnection]
) -> None:
    connection = connect(10.0)
    assert ask(connection)
    before = held(connection)
    connection.timeout = 0.1
    setattr(fake, where, manner)
    for _ in range(4):
        fake.hang_up()
        eventually("the monitor has hung up", lambda: not fake.clients)
        assert not ask(connection)
    setattr(fake, where, "")
    connection.timeout = 10.0
    assert ask(connection)
    eventually(f"as before: {before}; now {held(connection)}", lambda: held(connection) == before)


def test_nothing_is_held_when_nobody_accepts(short_path: Path, connect: Callable[[float], QmpConnection]) -> None:
    """A missing socket, and one that nobody listens on, which fail before there is a connection at all."""
    connection = connect(0.1)
    assert not ask(connection)
    before = held(connection)
    for _ in range(100):
        assert not ask(connection)
    assert held(connection) == before


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    """This process may have 256 descriptors, and has them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    spare: list[int] = []
    try:
        with contextlib.suppress(OSError):
            while True:
                spare.append(os.open("/dev/null", os.O_RDONLY))
        yield
    finally:
        for descriptor in spare:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        yield ours, theirs


def test_no_other_process_is_seen_when_there_is_no_descriptor_left(
    pair: tuple[socket.socket, socket.socket], few_descriptors: None
) -> None:
    """The work of a task counts as lost when another process answers; half an identity would be another one."""
    with pytest.raises(OSError, match="Too many open files"):
        _peer_of(pair[0])


def test_memory_stays_flat_over_a_thousand_bad_answers(
    fake: FakeQmp, connect: Callable[[float], QmpConnection], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "task_daemon.backends")  # pytest would keep a thousand lines of it
    connection = connect(0.02)
    manners = [manner for manner in MANNERS if not manner[1].startswith("a big")]  # each the work of 7 MB
    rounds = -(-BAD_ANSWERS // len(manners))

    def a_round() -> None:
        for where, manner in manners:
            setattr(fake, where, manner)
            fake.hang_up()
            ask(connection)
            setattr(fake, where, "")

    def settled() -> int:
        fake.hang_up()
        eventually("the monitor has nobody to serve", lambda: not fake.clients)
        fake.commands.clear()
        connection.timeout = 20.0
        assert ask(connection)
        connection.timeout = 0.02
        caplog.clear()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        connection.timeout = 0.2  # on a slow machine, too, each answer is read once before: what is loaded by that stays
        for _ in range(2):
            a_round()
        before = settled()
        for _ in range(rounds):
            a_round()
        eventually("no more is held than before", lambda: settled() - before < GROWTH)  # what was late may still be on its way
    finally:
        tracemalloc.stop()


def test_memory_stays_flat_over_a_flood_of_events(fake: FakeQmp, connect: Callable[[float], QmpConnection]) -> None:
    """Measured with qemu.qmp's own listener: 1.5 kB are kept of each event for ever."""
    connection = connect(60.0)
    woken = 0

    def wake() -> None:
        nonlocal woken
        woken += 1

    connection.on_change(wake)
    tracemalloc.start()
    try:
        before = 0
        for count in (CROWD // 20, CROWD):
            assert ask(connection)
            gc.collect()
            before = tracemalloc.get_traced_memory()[0]
            for events in flood(count, "concluded"):
                fake.send(events)
        assert ask(connection)
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] - before < GROWTH
        assert woken == CROWD // 20 + CROWD
    finally:
        tracemalloc.stop()


CONFIG = """
[daemon]
poll_interval = 0.2
log_level = "info"
[zones.bad]
backend = "storage"
poll_timeout = 0.2
qmp = "{home}/bad.qmp"
[zones.good]
backend = "storage"
poll_timeout = 5.0
qmp = "{home}/good.qmp"
"""

QUICK = ["garbage", "an array", "hanging up", "null", "a malformed error", "half a reply and the end", "an error without id"]
BAD_POLLS = 50
RUNNING = {"id": "job-1", "status": "running", "type": "backup", "current-progress": 1, "total-progress": 4}


def test_f5_a_daemon_holds_nothing_and_serves_its_other_zone_while_one_talks_nonsense(short_path: Path) -> None:
    with (
        FakeQmp(str(short_path / "bad.qmp")) as bad,
        FakeQmp(str(short_path / "good.qmp")) as good,
        Receiver() as receiver,
        Daemon(short_path, CONFIG.format(home=short_path)) as daemon,
        daemon.client() as client,
    ):
        bad.jobs = good.jobs = [RUNNING]
        watched = client.register("a", "backup", "bad", job="job-1", callback=receiver.url)
        client.register("b", "backup", "good", job="job-1", callback=receiver.url)

        def zones() -> dict[str, Any]:
            return {zone["zone"]: zone for zone in client.zones()}

        def process() -> tuple[int, int]:
            return len(os.listdir(f"/proc/{daemon.pid}/fd")), len(os.listdir(f"/proc/{daemon.pid}/task"))

        eventually("both tasks run", lambda: {task.state for task in client.list()} == {"running"})
        bad.reply = "silence"
        eventually("the bad zone is seen within two intervals", lambda: zones()["bad"]["state"] == "unreachable", 3.0)
        assert zones()["good"]["state"] == "ok"
        assert "no answer to query-jobs within 0.2 s" in zones()["bad"]["last_error"]

        good.jobs = [{**RUNNING, "status": "concluded"}]
        (told,) = receiver.wait(1)
        assert [told.json()["data"]["task"][member] for member in ("id", "state")] == ["b", "succeeded"]

        bad.reply = ""
        eventually("the bad zone is good again", lambda: zones()["bad"]["state"] == "ok", 30.0)
        before = process()
        bad.script.extend(word for number in range(BAD_POLLS) for word in (QUICK[number % len(QUICK)], ""))
        end = threading.Event()

        def hurried() -> bool:
            """A good answer in between keeps the zone from being asked less and less often."""
            client.poll(watched.uid)
            end.wait(0.05)
            return not bad.script

        eventually("fifty bad polls", hurried, 90.0)
        eventually(f"not more descriptors and threads than {before}", lambda: process() <= before)
        assert client.get(watched.uid).state == "running"

        bad.jobs = [{**RUNNING, "status": "concluded"}]
        eventually("the end in the bad zone is told too", lambda: len(receiver.requests) == 2)
        assert daemon.stop() == 0
