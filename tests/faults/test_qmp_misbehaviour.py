"""A storage zone against a monitor that misbehaves in every manner that was measured or can be thought of.

Whatever it does: the zone loses its own time-out and no more, nothing ends because of garbage, and the other zones, which
share one thread with it, notice nothing.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from tornado.platform.asyncio import AsyncIOLoop

from task_daemon.backends.storage import FAMILY
from task_daemon.backends.storage.backend import Settings
from task_daemon.backends.storage.fake_qmp import CROWD, GREETINGS, JOBS, LATE, REPLIES, FakeQmp, flood
from task_daemon.clock import FakeClock
from task_daemon.core.errors import BackendUnreachable
from task_daemon.core.model import Mode, Report, State, Task, Verdict
from task_daemon.core.ports import Backend, ZoneContext
from task_daemon.tracking.manager import Limits
from tests.making import a_task
from tests.tracking.outside import World
from tests.waiting import PATIENCE, eventually

TIMEOUT = 0.5  # seconds
IN_TIME = r"^cannot (reach|read)(?!.*no result within)"  # that is what a worker says which gave up waiting for the loop
NEIGHBOURLY = 5.0  # seconds that a healthy zone's poll may take at the very most; undisturbed it takes 1 ms
RUNNING = {"id": "job-1", "status": "running", "type": "backup", "current-progress": 1, "total-progress": 4}
CONCLUDED = {**RUNNING, "status": "concluded", "current-progress": 4}

MANNERS = [("greeting", name) for name in sorted(GREETINGS)] + [("reply", name) for name in sorted(REPLIES)]


def zone(path: Path, timeout: float = TIMEOUT) -> Backend:
    return FAMILY.make(Settings(qmp=str(path), roots=("/images",)), ZoneContext("z", "/nowhere", timeout, FakeClock()))


def seen(task: Task, backend: Backend) -> Report:
    return backend.poll([task])[task.uid]


class Neighbour:
    """A healthy zone that is polled without a pause; a poll that takes longer than NEIGHBOURLY is an error."""

    def __init__(self, path: Path) -> None:
        self.polls = 0
        self.wrong: list[object] = []
        self._fake = FakeQmp(str(path))
        self._fake.jobs = [RUNNING]
        self._backend = zone(path, NEIGHBOURLY)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def _work(self) -> None:
        task = a_task(job="job-1")
        while not self._over.wait(0.005):
            try:
                verdict = seen(task, self._backend).verdict
            except Exception as error:
                self.wrong.append(error)
                return
            if verdict is not Verdict.GOING_ON:
                self.wrong.append(verdict)
            self.polls += 1

    def __enter__(self) -> Self:
        self._thread.start()
        eventually("the healthy zone is polled", lambda: self.polls or self.wrong)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(20)
        self._backend.close()
        self._fake.close()

    def check(self) -> None:
        assert self.wrong == []


@pytest.fixture
def neighbour(short_path: Path) -> Iterator[Neighbour]:
    with Neighbour(short_path / "good") as one:
        yield one


@pytest.mark.parametrize(("where", "manner"), MANNERS, ids=[f"{where}: {name}" for where, name in MANNERS])
def test_i6_a_zone_loses_its_own_time_out_and_no_more_whatever_its_monitor_does(
    where: str, manner: str, short_path: Path, neighbour: Neighbour
) -> None:
    task = a_task(job="job-1")
    with FakeQmp(str(short_path / "bad")) as fake, contextlib.closing(zone(short_path / "bad")) as backend:
        fake.jobs = [CONCLUDED]
        setattr(fake, where, manner)
        for _ in range(2):
            before = neighbour.polls
            with pytest.raises(BackendUnreachable, match=IN_TIME) as caught:
                backend.poll([task])
            assert "within" not in str(caught.value) or neighbour.polls > before + 2, "the healthy zone waited as well"
        setattr(fake, where, "")
        fake.jobs = [RUNNING]
        assert seen(task, backend).verdict is Verdict.GOING_ON
    neighbour.check()


@pytest.mark.parametrize("manner", sorted(JOBS))
def test_an_answer_that_names_no_jobs_is_no_evidence(manner: str, short_path: Path) -> None:
    task = a_task(job="job-1", state=State.RUNNING, misses=2, handle={"peer": "another process", "job": "job-1"})
    with FakeQmp(str(short_path / "bad")) as fake, contextlib.closing(zone(short_path / "bad")) as backend:
        fake.jobs = JOBS[manner]
        with pytest.raises(BackendUnreachable):
            backend.poll([task])
        fake.jobs = [RUNNING]
        assert seen(task, backend).verdict is Verdict.GOING_ON


@pytest.mark.parametrize("manner", sorted(JOBS))
def test_i2_nothing_is_started_when_the_answer_does_not_tell_whether_it_runs(manner: str, short_path: Path) -> None:
    params = {"source": "/images/a", "target": "/images/b"}
    task = a_task(action="clone", mode=Mode.RUN, params=params, launched=True)
    with FakeQmp(str(short_path / "bad")) as fake, contextlib.closing(zone(short_path / "bad")) as backend:
        fake.jobs = JOBS[manner]
        with pytest.raises(BackendUnreachable):
            backend.actions["clone"].start(task)
        assert set(fake.commands) == {"qmp_capabilities", "query-jobs"}


@pytest.mark.parametrize(
    "odd",
    [
        {"status": None},
        {"status": "exploded"},
        {"current-progress": 2**70},
        {"total-progress": -(10**30)},
        {"current-progress": float("nan")},
        {"total-progress": float("inf")},
        {"error": 7},
        {"error": {"class": "GenericError"}},
        {"status": ["concluded"]},
    ],
    ids=str,
)
def test_an_entry_that_makes_no_sense_ends_nothing_and_spoils_no_other(odd: dict[str, Any], short_path: Path) -> None:
    bad, good = a_task(job="job-1", state=State.RUNNING), a_task(uid="2", job="job-2")
    with FakeQmp(str(short_path / "bad")) as fake, contextlib.closing(zone(short_path / "bad")) as backend:
        fake.jobs = [{**CONCLUDED, **odd}, {**CONCLUDED, "id": "job-2"}]
        reports = backend.poll([bad, good])
        assert [reports[bad.uid].verdict, reports[good.uid].verdict] == [Verdict.UNKNOWN, Verdict.SUCCEEDED]


def test_a_late_answer_is_never_taken_for_that_to_a_later_question(short_path: Path, neighbour: Neighbour) -> None:
    task = a_task(job="job-1")
    with FakeQmp(str(short_path / "bad")) as fake, contextlib.closing(zone(short_path / "bad", LATE / 4)) as backend:
        fake.jobs = [CONCLUDED]
        fake.reply = "a late reply"
        with pytest.raises(BackendUnreachable, match="no answer to query-jobs within"):
            backend.poll([task])
        fake.jobs, fake.reply = [RUNNING], ""
        end = time.monotonic() + 1.5 * LATE
        while time.monotonic() < end:
            assert seen(task, backend).verdict is Verdict.GOING_ON
    neighbour.check()


@pytest.mark.parametrize("where", ["greeting", "reply"])
def test_a_slow_answer_counts_when_it_is_whole_within_the_time_out(where: str, short_path: Path) -> None:
    with FakeQmp(str(short_path / "slow")) as fake, contextlib.closing(zone(short_path / "slow", 30.0)) as backend:
        fake.jobs = [CONCLUDED]
        setattr(fake, where, "one byte at a time")
        assert seen(a_task(job="job-1"), backend).verdict is Verdict.SUCCEEDED


@pytest.mark.parametrize("status", ["running", "concluded"])
def test_a_flood_of_events_delays_no_other_zone_and_breaks_no_connection(
    status: str, short_path: Path, neighbour: Neighbour
) -> None:
    woken: list[float] = []
    task = a_task(job="job-1")
    with FakeQmp(str(short_path / "bad")) as fake, contextlib.closing(zone(short_path / "bad", 30.0)) as backend:
        fake.jobs = [RUNNING]
        backend.events(lambda: woken.append(0))
        assert seen(task, backend).verdict is Verdict.GOING_ON
        before = neighbour.polls
        for events in flood(CROWD, status):
            fake.send(events)
        assert seen(task, backend).verdict is Verdict.GOING_ON
        assert neighbour.polls > before + 2
        assert len(woken) == (CROWD if status == "concluded" else 0)
        assert fake.connections == 1
    neighbour.check()


def test_a_monitor_that_another_client_holds_says_so_and_works_when_it_is_let_go(short_path: Path, neighbour: Neighbour) -> None:
    """As measured with a real one: the next two wait in its queue without a greeting, the one after them gets EAGAIN."""
    path, task = short_path / "held", a_task(job="job-1")
    with FakeQmp(str(path), one_client=True) as fake, contextlib.closing(zone(path)) as backend:
        fake.jobs = [RUNNING]
        with contextlib.ExitStack() as others:
            _connect(others, path).recv(1)  # holds the monitor: it was greeted
            with pytest.raises(BackendUnreachable, match=r"no greeting within 0\.5 s; another client may hold this monitor"):
                backend.poll([task])
            while _fits(others, path):
                pass
            with pytest.raises(
                BackendUnreachable, match="queue of waiting clients is full; another client may hold this monitor"
            ):
                backend.poll([task])
        eventually("the zone answers again", lambda: _answers(backend, task))
    neighbour.check()


def _connect(stack: contextlib.ExitStack, path: Path) -> socket.socket:
    sock = stack.enter_context(socket.socket(socket.AF_UNIX))
    sock.setblocking(False)
    sock.connect(str(path))
    sock.settimeout(5)
    return sock


def _fits(stack: contextlib.ExitStack, path: Path) -> bool:
    try:
        _connect(stack, path)
    except BlockingIOError:
        return False
    return True


def _answers(backend: Backend, task: Task) -> bool:
    try:
        return seen(task, backend).verdict is Verdict.GOING_ON
    except BackendUnreachable:
        return False


@pytest.fixture
def world(short_path: Path, io_loop: AsyncIOLoop, clock: FakeClock) -> Iterator[World]:
    """The real engine and poller over two storage zones, `bad` and `good`."""
    backends = {name: zone(short_path / f"{name}.qmp", 0.2) for name in ("bad", "good")}
    made = World(clock, short_path, backends, Limits())
    io_loop.run_sync(made.open, timeout=PATIENCE)
    yield made
    io_loop.run_sync(made.engine.close, timeout=PATIENCE)
    for backend in backends.values():
        backend.close()
    assert made.fatal == []


async def test_nothing_ends_because_of_garbage_and_all_ends_are_found_afterwards(short_path: Path, world: World) -> None:
    """One task in each zone, through every manner in a row; the work of the bad zone goes on all the time."""
    with FakeQmp(str(short_path / "bad.qmp")) as bad, FakeQmp(str(short_path / "good.qmp")) as good:
        bad.jobs = good.jobs = [RUNNING]
        watched = await world.register("a", zone="bad", job="job-1", timeout=1_000_000)
        other = await world.register("b", zone="good", job="job-1", timeout=1_000_000)
        await world.beat()
        for where, manner in MANNERS:
            setattr(bad, where, manner)
            bad.hang_up()
            await world.pass_(60.0)
            assert world.zone("bad")["state"] == "unreachable", manner
            assert world.zone("good")["state"] == "ok", manner
            setattr(bad, where, "")
        for jobs in JOBS.values():
            bad.jobs = jobs
            await world.pass_(60.0)
        task = await world.manager.get(watched.uid)
        assert (task.state, task.misses) == (State.RUNNING, 0)
        assert await world.types(watched.uid) == ["registered", "running", "size"]

        bad.jobs = good.jobs = [CONCLUDED]
        await world.pass_(60.0)
        assert [(await world.manager.get(uid)).state for uid in (watched.uid, other.uid)] == [State.SUCCEEDED] * 2
        assert (world.zone("bad")["state"], world.zone("bad")["failures"]) == ("ok", 0)


async def test_an_error_that_no_disk_can_hold_is_cut_and_made_readable(short_path: Path, world: World) -> None:
    """Half a surrogate pair cannot be written as UTF-8; some MiB would go into the task, its history and its callbacks."""
    with FakeQmp(str(short_path / "bad.qmp")) as bad:
        bad.jobs = [{**CONCLUDED, "error": "broken \ud800" + "x" * 5_000_000}]
        watched = await world.register("a", zone="bad", job="job-1")
        await world.pass_(60.0)
        task = await world.manager.get(watched.uid)
        assert task.error is not None
        assert (task.state, task.error.message[:9]) == (State.FAILED, "broken ?x")
        assert len(task.error.message) < 5000
