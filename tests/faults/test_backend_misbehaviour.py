"""Backends that others write may do anything: the harm stays with the task or the zone it belongs to.

The real engine on disk and the real poller, two zones: one whose backend misbehaves, and a good one.
"""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tornado.httpclient import AsyncHTTPClient
from tornado.platform.asyncio import AsyncIOLoop
from tornado.web import Application

from task_daemon.api.access import Access, Members
from task_daemon.api.app import make_app
from task_daemon.api.context import Daemon, Phase
from task_daemon.clock import FakeClock
from task_daemon.core.errors import BackendError, BackendUnreachable, StartRefused, WorkGone
from task_daemon.core.model import Progress, Query, Report, State, Task, Verdict
from task_daemon.core.uids import new_uid
from task_daemon.tracking.manager import Limits
from tests.tracking.outside import GOING_ON, Outside, World
from tests.waiting import PATIENCE, eventually

SUCCEEDED = Report(Verdict.SUCCEEDED)
FAILED = Report(Verdict.FAILED, message="it broke")


class Hostile(Outside):
    """`admitting` is what `admit` does."""

    def __init__(self) -> None:
        super().__init__()
        self.admitting: Callable[[Task], Any] = lambda task: None

    def admit(self, task: Task) -> dict[str, Any] | None:
        answer: dict[str, Any] | None = self.admitting(task)
        return answer


@pytest.fixture
def bad() -> Hostile:
    return Hostile()


@pytest.fixture
def world(short_path: Path, io_loop: AsyncIOLoop, clock: FakeClock, bad: Hostile) -> Iterator[World]:
    made = World(clock, short_path, {"bad": bad, "good": Outside()}, Limits())
    io_loop.run_sync(made.open, timeout=PATIENCE)
    yield made
    io_loop.run_sync(made.engine.close, timeout=PATIENCE)
    assert made.fatal == []


async def running(world: World, name: str = "a", zone: str = "bad") -> str:
    """The uid of a tracked task that was seen running."""
    uid = (await world.register(name, zone=zone)).uid
    await world.beat()
    assert await state(world, uid) is State.RUNNING
    return uid


async def state(world: World, uid: str) -> State:
    return (await world.manager.get(uid)).state


async def recovered(world: World, bad: Hostile, *uids: str) -> None:
    """As soon as the backend behaves, every end is found, and a daemon that is started again knows it."""
    bad.answer = bad.one_by_one
    bad.report = lambda task: SUCCEEDED
    await world.pass_(120.0)
    assert [await state(world, uid) for uid in uids] == [State.SUCCEEDED] * len(uids)
    assert (world.zone("bad")["state"], world.zone("bad")["failures"]) == ("ok", 0)


def raising(error: BaseException) -> Callable[[Any], Any]:
    def call(_: Any) -> Any:
        raise error

    return call


def endless(_: Any) -> Any:
    return endless(_)


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this")

    __repr__ = __str__


class LyingMapping(Mapping[str, Report]):
    """Says that it has everything, and has nothing."""

    def __getitem__(self, key: str) -> Report:
        raise ZeroDivisionError

    def __iter__(self) -> Iterator[str]:
        return iter(["?"])

    def __len__(self) -> int:
        return 1


RAISED: dict[str, Callable[[Any], Any]] = {
    "RuntimeError": raising(RuntimeError("no")),
    "SystemExit": raising(SystemExit(1)),
    "KeyboardInterrupt": raising(KeyboardInterrupt()),
    "GeneratorExit": raising(GeneratorExit()),
    "CancelledError": raising(asyncio.CancelledError()),
    "BaseException": raising(BaseException("no")),
    "MemoryError": raising(MemoryError()),
    "RecursionError": endless,
    "StopIteration": raising(StopIteration()),
    "an error that cannot be shown": raising(Unspeakable()),
    "an error of surrogates": raising(ValueError("\ud800")),
    "an error of some MiB": raising(ValueError("x" * 5_000_000)),
}

NO_ANSWERS: dict[str, Callable[[Any], Any]] = {
    **RAISED,
    "None": lambda tasks: None,
    "a number": lambda tasks: 7,
    "a text": lambda tasks: "succeeded",
    "a list of reports": lambda tasks: [SUCCEEDED for _ in tasks],
    "a coroutine's worth": lambda tasks: object(),
    "a mapping that lies": lambda tasks: LyingMapping(),
    "reports of unknown uids": lambda tasks: {new_uid(0.0): SUCCEEDED, "": FAILED, "x" * 10_000: SUCCEEDED},
    "keys that are no uids": lambda tasks: {7: SUCCEEDED, None: FAILED, (tasks[0].uid,): SUCCEEDED},
    "nothing": lambda tasks: {},
}

RING: dict[str, Any] = {}
RING["me"] = RING

NO_REPORTS: dict[str, Any] = {
    "a text": "succeeded",
    "a number": 7,
    "an object": {"verdict": "succeeded"},
    "a list": [SUCCEEDED],
    "the class": Report,
    "a verdict alone": Verdict.SUCCEEDED,
    "a verdict that is a text": Report("over"),  # type: ignore[arg-type]
    "a verdict that is None": Report(None),  # type: ignore[arg-type]
    "progress that is a number": Report(Verdict.GOING_ON, progress=7),  # type: ignore[arg-type]
    "percent that is a text": Report(Verdict.GOING_ON, progress=Progress(percent="many")),  # type: ignore[arg-type]
    "bytes done that are a text": Report(Verdict.GOING_ON, progress=Progress(done="many")),  # type: ignore[arg-type]
    "a message that is bytes": Report(Verdict.FAILED, message=[b"no"]),  # type: ignore[arg-type]
    "a handle that is a list": Report(Verdict.GOING_ON, handle=[1, 2]),  # type: ignore[arg-type]
    "a handle that no disk can hold": Report(Verdict.GOING_ON, handle={"job": object()}),
    "a handle that holds itself": Report(Verdict.GOING_ON, handle=RING),
    "a handle of half a surrogate pair": Report(Verdict.GOING_ON, handle={"job": "\ud800"}),
    "a handle of some MiB": Report(Verdict.GOING_ON, handle={"job": "x" * 5_000_000}),
    "a size that is a text": Report(Verdict.SUCCEEDED, size="big"),  # type: ignore[arg-type]
    "details that no disk can hold": Report(Verdict.FAILED, message="no", backend={"error": object()}),
    "a kind that is a number": Report(Verdict.FAILED, message="no", kind=7),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("manner", sorted(NO_ANSWERS))
async def test_i6_a_poll_without_an_answer_ends_nothing_and_harms_its_own_zone_only(
    manner: str, world: World, bad: Hostile
) -> None:
    one, two, other = await running(world, "a"), await running(world, "b"), await running(world, "c", "good")
    for _ in range(4):  # one more than would make a task lost
        bad.answer = NO_ANSWERS[manner]
        polled = len(bad.polls)
        await world.pass_(120.0)
        assert len(bad.polls) > polled
        assert world.zone("bad")["state"] in {"ok", "unreachable"}, "it is not out on a call"
    assert [await state(world, uid) for uid in (one, two, other)] == [State.RUNNING] * 3
    assert world.zone("good")["errors"] == []
    assert all(len(error) < 10_000 for error in world.errors("bad"))
    await recovered(world, bad, one, two)


@pytest.mark.parametrize("manner", sorted(NO_REPORTS))
async def test_a_report_that_is_none_harms_its_own_task_only(manner: str, world: World, bad: Hostile) -> None:
    one, two = await running(world, "a"), await running(world, "b")
    bad.report = lambda task: NO_REPORTS[manner] if task.id == "a" else FAILED
    await world.pass_(120.0)
    assert [await state(world, uid) for uid in (one, two)] == [State.RUNNING, State.FAILED]
    assert any(one in error for error in world.errors("bad"))
    await recovered(world, bad, one)


async def test_a_failure_is_told_in_bounded_and_readable_words_whatever_the_backend_says(world: World, bad: Hostile) -> None:
    uid = await running(world)
    bad.report = lambda task: Report(Verdict.FAILED, message="\udcff.qcow2 " + "x" * 5_000_000)
    await world.pass_(120.0)
    task = await world.manager.get(uid)
    assert task.error is not None
    assert (task.state, task.error.message[:9], len(task.error.message) < 5000) == (State.FAILED, "?.qcow2 x", True)


@pytest.mark.parametrize("kind", [StartRefused, WorkGone])
async def test_a_refused_start_is_told_in_bounded_and_readable_words(
    kind: type[BackendError], world: World, bad: Hostile
) -> None:
    bad.start = raising(kind("\udcff.qcow2 " + "x" * 5_000_000))
    task = await world.run("a", zone="bad")
    await world.beat()
    ended = await world.manager.get(task.uid)
    assert ended.error is not None
    assert (ended.done, ended.error.message[:9], len(ended.error.message) < 5000) == (True, "?.qcow2 x", True)


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), float("-inf"), -5.0, 1e308], ids=str)
async def test_a_percentage_that_is_no_number_is_not_shown(odd: float, world: World, bad: Hostile) -> None:
    uid = await running(world)
    bad.report = lambda task: Report(Verdict.GOING_ON, progress=Progress(percent=odd, done=1))
    await world.pass_(120.0)
    progress = (await world.manager.get(uid)).progress
    assert progress is not None
    assert progress.percent is None or 0 <= progress.percent <= 100
    json.loads(msgspec.json.encode(progress))
    await recovered(world, bad, uid)


@pytest.mark.parametrize("step", ["prepare", "start"])
@pytest.mark.parametrize("manner", sorted(RAISED))
async def test_a_start_that_raises_anything_is_made_again_and_starts_the_others(
    step: str, manner: str, world: World, bad: Hostile
) -> None:
    good = getattr(bad, step)
    setattr(bad, step, lambda task: RAISED[manner](task) if task.id == "a" else good(task))
    one, two = await world.run("a", zone="bad"), await world.run("b", zone="bad")
    await world.beat()
    assert [await state(world, task.uid) for task in (one, two)] == [State.QUEUED, State.RUNNING]
    assert world.zone("bad")["state"] == "ok"
    setattr(bad, step, good)
    await world.pass_(120.0)
    assert await state(world, one.uid) is State.RUNNING
    await recovered(world, bad, one.uid, two.uid)


@pytest.mark.parametrize("manner", sorted(RAISED))
async def test_cancelling_and_cleaning_up_are_repeated_whatever_they_raise(manner: str, world: World, bad: Hostile) -> None:
    task = await world.run("a", zone="bad")
    await world.beat()
    bad.cancel = bad.forget = RAISED[manner]
    await world.manager.cancel(task.uid)
    await world.pass_(120.0)
    assert await state(world, task.uid) is State.CANCELLING
    bad.report = lambda task: Report(Verdict.FAILED, message="stopped", cancelled=True)
    await world.pass_(120.0)
    assert await state(world, task.uid) is State.CANCELLED
    tries = len(bad.forgets)
    await world.pass_(120.0)
    assert len(bad.forgets) > tries
    bad.forget = lambda task: None
    await world.pass_(120.0)
    assert (await world.types(task.uid))[-1] == "tidied"


@pytest.mark.parametrize("name", [name for name, report in NO_REPORTS.items() if isinstance(report, Report)])
async def test_a_start_that_reports_nonsense_is_made_again(name: str, world: World, bad: Hostile) -> None:
    report = NO_REPORTS[name]
    bad.start = lambda task: report if task.id == "a" else GOING_ON
    one, two = await world.run("a", zone="bad"), await world.run("b", zone="bad")
    await world.beat()
    assert [await state(world, task.uid) for task in (one, two)] == [State.QUEUED, State.RUNNING]
    bad.start = lambda task: GOING_ON
    await world.pass_(120.0)
    await recovered(world, bad, one.uid, two.uid)


@pytest.mark.parametrize(
    "handle",
    [{"x": object()}, {"x": "\ud800"}, [1], "text", {"x": "y" * 5_000_000}],
    ids=["an object", "half a surrogate pair", "a list", "a text", "some MiB"],
)
async def test_a_handle_that_cannot_be_stored_is_not_taken_and_delays_no_other(handle: Any, world: World, bad: Hostile) -> None:
    bad.prepare = lambda task: handle if task.id == "a" else {"fine": True}
    one, two = await world.run("a", zone="bad"), await world.run("b", zone="bad")
    await world.beat()
    assert [await state(world, task.uid) for task in (one, two)] == [State.QUEUED, State.RUNNING]
    assert bad.starts == ["b"]
    bad.prepare = lambda task: None
    await world.pass_(120.0)
    await recovered(world, bad, one.uid, two.uid)


async def test_what_comes_back_after_its_thread_was_given_up_is_not_believed(
    short_path: Path, io_loop: AsyncIOLoop, clock: FakeClock, world: World, bad: Hostile
) -> None:
    one, other = await running(world, "a"), await running(world, "b", "good")
    entered, leave = threading.Event(), threading.Event()

    def late(tasks: Sequence[Task]) -> dict[str, Report]:
        entered.set()
        leave.wait(20)
        return {task.uid: FAILED for task in tasks}

    bad.answer = late
    try:
        await world.pass_(30.0, besides=["bad"])
        assert entered.wait(20)
        await world.pass_(1000.0, besides=["bad"])
        assert world.zone("bad")["state"] == "hung"
        assert [entry["zone"] for entry in world.engine.status()["stuck"]] == ["bad"]
        assert await state(world, other) is State.RUNNING
        bad.answer = bad.one_by_one
    finally:
        leave.set()
    eventually("the stuck thread came back", lambda: world.engine.status()["stuck"] == [])
    await world.pass_(0.0)
    assert await state(world, one) is State.RUNNING
    await recovered(world, bad, one)


async def test_an_answer_after_the_time_out_counts_when_nobody_has_given_it_up(
    world: World, bad: Hostile, clock: FakeClock
) -> None:
    """The time-out is the backend's to keep; a thread is given up much later, and until then its evidence is good."""
    uid = await running(world)

    def slow(tasks: Sequence[Task]) -> dict[str, Report]:
        clock.advance(60.0)
        return {task.uid: FAILED for task in tasks}

    bad.answer = slow
    await world.pass_(30.0)
    assert await state(world, uid) is State.FAILED


async def test_a_zone_that_flaps_between_every_manner_loses_nothing(world: World, bad: Hostile) -> None:
    uids = [await running(world, name) for name in "abc"]
    for number, name in enumerate(sorted(NO_ANSWERS)):
        bad.answer = raising(BackendUnreachable("down")) if number % 3 == 0 else NO_ANSWERS[name]
        await world.pass_(120.0)
    assert [await state(world, uid) for uid in uids] == [State.RUNNING] * 3
    assert len({thread.name for thread in threading.enumerate() if thread.name.startswith("worker-")}) == 4
    await recovered(world, bad, *uids)


# ---------------------------------------------------------------------- admit, on the event loop


@pytest.fixture
def app(world: World) -> Application:
    daemon = Daemon(version="1", boot_id="b", started_at=0.0, phase=Phase, features=(), limits={}, durability="on disk")
    return make_app(world.manager, daemon, Access(None, Members(), Members()))


async def registered(http_client: AsyncHTTPClient, base_url: str, zone: str) -> tuple[int, dict[str, Any]]:
    body = json.dumps({"id": "d", "action": "backup", "zone": zone})
    answer = await http_client.fetch(f"{base_url}/v1/tasks", method="POST", body=body, raise_error=False)
    return answer.code, json.loads(answer.body)


@pytest.mark.parametrize("manner", sorted(RAISED))
async def test_a_registration_is_refused_as_an_internal_error_when_admit_raises_anything(
    manner: str, world: World, bad: Hostile, http_client: AsyncHTTPClient, base_url: str
) -> None:
    bad.admitting = RAISED[manner]
    status, problem = await registered(http_client, base_url, "bad")
    assert (status, problem["code"]) == (500, "internal")
    assert len(json.dumps(problem)) < 2000
    assert (await registered(http_client, base_url, "good"))[0] == 202
    bad.admitting = lambda task: None
    assert (await registered(http_client, base_url, "bad"))[0] == 202


@pytest.mark.parametrize("handle", [{"x": object()}, {"x": "\ud800"}], ids=["an object", "half a surrogate pair"])
async def test_a_registration_is_refused_as_an_internal_error_when_its_handle_cannot_be_stored(
    handle: Any, world: World, bad: Hostile, http_client: AsyncHTTPClient, base_url: str
) -> None:
    bad.admitting = lambda task: handle
    status, problem = await registered(http_client, base_url, "bad")
    assert (status, problem["code"]) == (500, "internal")
    assert (await registered(http_client, base_url, "good"))[0] == 202
    assert (await world.engine.find(Query(zone="bad"))).tasks == []
