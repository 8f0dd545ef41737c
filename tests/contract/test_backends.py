"""What every action of every built-in backend promises. A new family or action is picked up by itself.

The first half needs nothing but the family. The second runs real work: families that can be run here without further
services have a *bench* below; storage is driven against a real QEMU by tests of its own.
"""

import fcntl
import json
import os
import struct
import termios
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Struct

from task_daemon.backends.registry import BUILT_IN, find_family
from task_daemon.clock import FakeClock, SystemClock
from task_daemon.core.errors import BackendError
from task_daemon.core.model import Mode, Owner, Report, State, Task, Verdict
from task_daemon.core.ports import Action, Backend, Clock, ZoneContext
from tests.waiting import eventually

SETTINGS: Mapping[str, dict[str, Any]] = {"storage": {"qmp": "/nowhere/qmp.sock"}}  # where the defaults are not enough
IMPOSSIBLE: tuple[Any, ...] = ({"no": ["such"]}, [{}], -1.5, "\0", True)


def make(family: str, directory: Path, clock: Clock, **settings: Any) -> Backend:
    found = find_family(family)
    context = ZoneContext(name="zone", directory=str(directory), poll_timeout=10.0, clock=clock)
    return found.make(msgspec.convert({**SETTINGS.get(family, {}), **settings}, found.settings), context)


def names_of(family: str) -> list[str]:
    backend = make(family, Path("/nowhere"), FakeClock())
    try:
        return list(backend.actions)
    finally:
        backend.close()


EVERY_ACTION = [(family, name) for family in BUILT_IN for name in names_of(family)]


@pytest.fixture(params=EVERY_ACTION, ids=lambda pair: ".".join(pair))
def action(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Action]:
    family, name = request.param
    backend = make(family, tmp_path, FakeClock())
    yield backend.actions[name]
    backend.close()


def test_action_has_a_name_and_one_line_for_people(action: Action) -> None:
    assert action.name
    assert action.summary.strip()
    assert "\n" not in action.summary
    assert isinstance(action.cancellable, bool)


def test_schema_of_params_can_be_shown(action: Action) -> None:
    shown = msgspec.json.schema(action.params)

    assert json.loads(json.dumps(shown)) == shown
    assert "$ref" in shown or shown["type"] == "object"


def test_unknown_param_is_refused_by_name(action: Action) -> None:
    with pytest.raises(msgspec.ValidationError, match="no_such_param"):
        msgspec.convert({"no_such_param": 1}, action.params, strict=True)


def test_wrongly_typed_param_is_refused_by_name(action: Action) -> None:
    for field in msgspec.structs.fields(action.params):
        wrong = next(value for value in IMPOSSIBLE if not fits(value, field.type))
        with pytest.raises(msgspec.ValidationError, match=rf"\$\.{field.encode_name}"):
            msgspec.convert({field.encode_name: wrong}, action.params, strict=True)


def fits(value: Any, kind: Any) -> bool:
    try:
        msgspec.convert(value, kind, strict=True)
    except msgspec.ValidationError:
        return False
    return True


@pytest.mark.parametrize("family", [*BUILT_IN])
def test_settings_refuse_what_they_do_not_know(family: str) -> None:
    with pytest.raises(msgspec.ValidationError, match="no_such_setting"):
        msgspec.convert({"no_such_setting": 1}, find_family(family).settings)


@pytest.mark.parametrize("family", [*BUILT_IN])
def test_zone_can_be_closed_when_it_was_never_used(family: str, tmp_path: Path) -> None:
    backend = make(family, tmp_path, FakeClock())
    backend.events(lambda: None)
    backend.close()


# ---------------------------------------------------------------- benches


class Bench(Struct):
    """A backend that can be run here: work that goes on until it is told to finish, and how often it was started."""

    open: Callable[[], Backend]
    task: Task
    finish: Callable[[], None]
    starts: Callable[[], int]


def simulated(directory: Path) -> Bench:
    clock = FakeClock()
    log = directory / "starts.log"
    return Bench(
        open=lambda: make("simulated", directory, clock, remember=True),
        task=run_task("simulated", {"finish_after": 60}, clock),
        finish=lambda: clock.advance(60),
        starts=lambda: len(log.read_text().splitlines()) if log.exists() else 0,
    )


def process(directory: Path) -> Bench:
    os.mkfifo(directory / "fifo")
    runs = directory / "runs"
    argv = ["sh", "-c", "echo ran >> runs; read line < fifo"]

    def finish() -> None:
        # opened for both directions, so that it never waits for a reader
        pipe = os.open(directory / "fifo", os.O_RDWR)
        os.write(pipe, b"go\n")
        eventually("the command has read", lambda: read_out(pipe))
        os.close(pipe)

    return Bench(
        open=lambda: make("process", directory, SystemClock(), grace=0.3),
        task=run_task("command", {"argv": argv, "cwd": str(directory)}, SystemClock()),
        finish=finish,
        starts=lambda: len(runs.read_text().splitlines()) if runs.exists() else 0,
    )


def read_out(pipe: int) -> bool:
    waiting = struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4))[0]
    return bool(waiting == 0)


def run_task(action: str, params: dict[str, Any], clock: Clock) -> Task:
    now = clock.now()
    owner = Owner(uid=os.geteuid(), gid=os.getegid())
    return Task(
        uid="task-1",
        id="thing",
        action=action,
        zone="zone",
        mode=Mode.RUN,
        owner=owner,
        created_at=now,
        timeout=60.0,
        deadline_at=now + 60,
        params=params,
        launched=True,
        tidy=False,
    )


BENCHES: Mapping[str, Callable[[Path], Bench]] = {"simulated": simulated, "process": process}


@pytest.fixture(params=sorted(BENCHES))
def bench(request: pytest.FixtureRequest, short_path: Path) -> Iterator[Bench]:
    made = BENCHES[request.param](short_path)
    yield made
    eventually("cleaning up", lambda: forgotten(made.open(), made.task))


def forgotten(backend: Backend, task: Task) -> bool:
    try:
        backend.actions[task.action].forget(task)
    except BackendError:
        return False
    finally:
        backend.close()
    return True


def look(backend: Backend, task: Task) -> Report:
    return backend.poll([task])[task.uid]


def until_over(backend: Backend, task: Task) -> Report:
    eventually("the end", lambda: look(backend, task).verdict is not Verdict.GOING_ON)
    return look(backend, task)


def test_work_succeeds_when_it_finishes(bench: Bench) -> None:
    backend = bench.open()
    backend.admit(bench.task)
    backend.actions[bench.task.action].start(bench.task)

    assert look(backend, bench.task).verdict is Verdict.GOING_ON
    bench.finish()
    assert until_over(backend, bench.task).verdict is Verdict.SUCCEEDED


def test_i2_work_is_started_once_when_start_is_repeated(bench: Bench) -> None:
    backend = bench.open()
    action = backend.actions[bench.task.action]
    reports = [action.start(bench.task) for _ in range(3)]
    eventually("a start", bench.starts)

    assert bench.starts() == 1
    assert [report.adopted for report in reports if report] == [False, True, True]


def test_i2_i9_work_is_adopted_when_backend_is_made_anew(bench: Bench) -> None:
    first = bench.open()
    first.actions[bench.task.action].start(bench.task)
    eventually("a start", bench.starts)
    first.close()
    second = bench.open()

    report = second.actions[bench.task.action].start(bench.task)
    assert report is not None
    assert (report.verdict, report.adopted) == (Verdict.GOING_ON, True)
    bench.finish()

    assert until_over(second, bench.task).verdict is Verdict.SUCCEEDED
    assert bench.starts() == 1


def test_end_is_still_known_when_backend_is_made_anew(bench: Bench) -> None:
    """The daemon was down while the work ended."""
    first = bench.open()
    first.actions[bench.task.action].start(bench.task)
    first.close()
    bench.finish()

    assert until_over(bench.open(), bench.task).verdict is Verdict.SUCCEEDED


def test_work_ends_as_cancelled_when_cancel_is_repeated(bench: Bench) -> None:
    backend = bench.open()
    action = backend.actions[bench.task.action]
    action.start(bench.task)
    action.cancel(bench.task)
    action.cancel(bench.task)

    report = until_over(backend, bench.task)

    assert (report.verdict, report.cancelled) == (Verdict.FAILED, True)


def test_work_never_runs_when_cancelled_between_intent_and_start(bench: Bench) -> None:
    """The intent is on disk, then the daemon died: `cancel` comes before any `start`."""
    backend = bench.open()
    backend.actions[bench.task.action].cancel(bench.task)

    report = look(backend, bench.task)

    assert (report.verdict, report.cancelled) == (Verdict.FAILED, True)
    assert bench.starts() == 0


def test_nothing_is_left_when_forgotten_twice(bench: Bench) -> None:
    backend = bench.open()
    backend.actions[bench.task.action].start(bench.task)
    bench.finish()
    until_over(backend, bench.task)
    eventually("cleaning up", lambda: forgotten(backend, bench.task))
    eventually("cleaning up again", lambda: forgotten(backend, bench.task))

    assert look(backend, bench.task).verdict in (Verdict.UNKNOWN, Verdict.VANISHED)


def test_work_is_stopped_when_forgotten_while_it_runs(bench: Bench) -> None:
    """The task has timed out; its work must not go on unseen."""
    backend = bench.open()
    backend.actions[bench.task.action].start(bench.task)
    timed_out = msgspec.structs.replace(bench.task, state=State.FAILED)

    eventually("cleaning up", lambda: forgotten(bench.open(), timed_out))

    backend = bench.open()
    assert look(backend, bench.task).verdict is not Verdict.GOING_ON
