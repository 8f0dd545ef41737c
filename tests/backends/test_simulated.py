"""The simulated backend keeps to its script; time is moved by hand."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from task_daemon.backends.simulated import FAMILY, SimulatedBackend, SimulatedSettings
from task_daemon.clock import FakeClock
from task_daemon.core import transitions
from task_daemon.core.errors import BackendUnreachable, ConfigError
from task_daemon.core.model import Mode, Owner, Report, State, Task, Verdict
from task_daemon.core.ports import ZoneContext


def make(clock: FakeClock, directory: Path, wait: Any = None, **settings: Any) -> SimulatedBackend:
    context = ZoneContext(name="play", directory=str(directory), poll_timeout=5.0, clock=clock)
    return SimulatedBackend(msgspec.convert(settings, SimulatedSettings), context, wait)


def task(clock: FakeClock, mode: Mode = Mode.TRACK, **members: Any) -> Task:
    fixed: dict[str, Any] = {"uid": "task-1", "id": "disk-1", "action": "backup", "zone": "play", "timeout": 60.0}
    now = clock.now()
    owner = Owner(uid=0, gid=0)
    return Task(**{**fixed, **members}, mode=mode, owner=owner, created_at=now, deadline_at=now + 60)


def look(backend: SimulatedBackend, task: Task) -> Report:
    return backend.poll([task])[task.uid]


def percent(report: Report) -> float | None:
    return None if report.progress is None else report.progress.percent


def test_progress_is_linear_in_time_and_ends(clock: FakeClock, tmp_path: Path) -> None:
    backend = make(clock, tmp_path, scenario=[{"finish_after": 20}])
    watched = task(clock)

    clock.advance(5)
    assert (look(backend, watched).verdict, percent(look(backend, watched))) == (Verdict.GOING_ON, 25.0)
    clock.advance(15)
    assert look(backend, watched).verdict is Verdict.SUCCEEDED


def test_first_matching_job_counts_when_several_match(clock: FakeClock, tmp_path: Path) -> None:
    jobs = [{"id": "other-*"}, {"action": "backup", "id": "disk-*", "finish_after": 2}, {"finish_after": 100}]
    backend = make(clock, tmp_path, scenario=jobs)
    watched = task(clock)
    clock.advance(1)

    assert percent(look(backend, watched)) == 50.0
    assert percent(look(backend, replace(watched, action="clone"))) == 1.0


def test_job_fails_when_its_percent_is_reached(clock: FakeClock, tmp_path: Path) -> None:
    backend = make(clock, tmp_path, scenario=[{"fail_at": 50, "message": "No space left on device"}])
    watched = task(clock)
    clock.advance(4.9)
    assert look(backend, watched).verdict is Verdict.GOING_ON
    clock.advance(3)

    report = look(backend, watched)

    assert (report.verdict, percent(report), report.message) == (Verdict.FAILED, 50.0, "No space left on device")


def test_job_stalls_and_goes_on_when_told(clock: FakeClock, tmp_path: Path) -> None:
    backend = make(clock, tmp_path, scenario=[{"finish_after": 10, "stall_at": 40, "stall_for": 100}])
    watched = task(clock)
    seen = []
    for seconds in (3, 1, 50, 50, 1, 5):
        clock.advance(seconds)
        seen.append(percent(look(backend, watched)))

    assert seen == [30.0, 40.0, 40.0, 40.0, 50.0, 100.0]


def test_job_stalls_for_ever_when_no_end_is_given(clock: FakeClock, tmp_path: Path) -> None:
    backend = make(clock, tmp_path, scenario=[{"stall_at": 40}])
    watched = task(clock)
    clock.advance(1e6)

    assert percent(look(backend, watched)) == 40.0


def test_f12_task_is_lost_after_three_polls_when_job_vanishes(clock: FakeClock, tmp_path: Path) -> None:
    backend = make(clock, tmp_path, scenario=[{"vanish_at": 70}])
    now = task(clock)
    states = []
    for seconds in (1, 7, 1, 1):
        clock.advance(seconds)
        change = transitions.apply(now, look(backend, now), clock.now())
        now = now if change is None else change.task
        states.append(now.state)

    assert states == [State.RUNNING, State.RUNNING, State.RUNNING, State.LOST]


def test_size_of_the_result_is_told(clock: FakeClock, tmp_path: Path) -> None:
    assert look(make(clock, tmp_path, scenario=[{"size": 7}]), task(clock)).size == 7


def test_params_override_the_scenario_when_the_task_is_run(clock: FakeClock, tmp_path: Path) -> None:
    backend = make(clock, tmp_path, scenario=[{"finish_after": 100, "size": 7}])
    run = task(clock, Mode.RUN, params={"finish_after": 2})
    backend.actions["backup"].start(run)
    clock.advance(1)

    assert (percent(look(backend, run)), look(backend, run).size) == (50.0, 7)


def test_zone_is_unreachable_when_its_time_has_come(clock: FakeClock, tmp_path: Path) -> None:
    backend = make(clock, tmp_path, unreachable=[[10, 20]])
    watched = task(clock, action="backup")
    look(backend, watched)
    clock.advance(10)
    with pytest.raises(BackendUnreachable, match="zone play"):
        look(backend, watched)
    clock.advance(10)

    assert look(backend, watched).verdict is Verdict.SUCCEEDED


@pytest.mark.parametrize(("seconds", "waited"), [(2.0, 2.0), (60.0, 5.0)])
def test_answers_take_time_when_zone_is_slow(clock: FakeClock, tmp_path: Path, seconds: float, waited: float) -> None:
    """Beyond the zone's time-out it is the caller who gives up, as with any real backend."""
    waits: list[float] = []
    backend = make(clock, tmp_path, waits.append, answer_after=seconds)

    if seconds > 5:
        with pytest.raises(BackendUnreachable, match="within 5 s"):
            look(backend, task(clock))
    else:
        look(backend, task(clock))

    assert waits == [waited]


def test_each_task_takes_a_call_when_they_are_asked_about_one_by_one(clock: FakeClock, tmp_path: Path) -> None:
    waits: list[float] = []
    backend = make(clock, tmp_path, waits.append, answer_after=0.25, one_by_one=True)
    reports = backend.poll([task(clock, uid=f"task-{n}") for n in range(3)])

    assert backend.one_by_one
    assert list(reports) == ["task-0", "task-1", "task-2"]
    assert waits == [0.25] * 3


@pytest.mark.parametrize(("one_by_one", "calls"), [(True, ["1 task-0", "1 task-1"]), (False, ["2 task-0"])])
def test_calls_are_written_down_when_asked_for(clock: FakeClock, tmp_path: Path, one_by_one: bool, calls: list[str]) -> None:
    directory = tmp_path / "zone"  # made after the backend
    backend = make(clock, directory, log_calls=True, one_by_one=one_by_one)
    directory.mkdir()
    backend.poll([task(clock, uid=f"task-{n}") for n in range(2)])
    backend.close()

    assert (directory / "calls.log").read_text().splitlines() == [f"{clock.now():.4f} {call}" for call in calls]


def test_job_is_found_again_when_backend_remembers(clock: FakeClock, tmp_path: Path) -> None:
    run = task(clock, Mode.RUN, params={})
    make(clock, tmp_path, remember=True).actions["backup"].start(run)
    clock.advance(5)

    report = make(clock, tmp_path, remember=True).actions["backup"].start(run)

    assert report is not None
    assert (report.adopted, percent(report)) == (True, 50.0)
    assert (tmp_path / "starts.log").read_text() == "task-1\n"


def test_running_job_goes_on_when_backend_remembers_nothing(clock: FakeClock, tmp_path: Path) -> None:
    """The task itself knows since when it runs."""
    run = replace(task(clock, Mode.RUN, params={}), started_at=clock.now(), state=State.RUNNING)
    clock.advance(5)

    assert percent(look(make(clock, tmp_path), run)) == 50.0


@pytest.mark.parametrize("mode", list(Mode))
def test_jobs_are_gone_when_zone_forgets_at_restart(clock: FakeClock, tmp_path: Path, mode: Mode) -> None:
    watched = replace(task(clock, mode), started_at=clock.now(), state=State.RUNNING)
    clock.advance(1)

    assert look(make(clock, tmp_path, forget_at_restart=True), watched).verdict is Verdict.VANISHED


def test_start_is_counted_once_when_asked_twice(clock: FakeClock, tmp_path: Path) -> None:
    backend = make(clock, tmp_path, remember=True)
    run = task(clock, Mode.RUN, params={})
    backend.actions["backup"].start(run)
    backend.actions["backup"].start(run)

    assert (tmp_path / "starts.log").read_text() == "task-1\n"


def test_finished_job_stays_finished_when_cancelled_too_late(clock: FakeClock, tmp_path: Path) -> None:
    backend = make(clock, tmp_path)
    run = task(clock, Mode.RUN, params={})
    backend.actions["backup"].start(run)
    clock.advance(10)
    backend.actions["backup"].cancel(run)

    assert look(backend, run).verdict is Verdict.SUCCEEDED


def test_scenario_is_read_from_a_file_and_adds_actions(clock: FakeClock, tmp_path: Path) -> None:
    (tmp_path / "scenario.toml").write_text('[[job]]\naction = "polish"\nid = "disk-*"\nfinish_after = 4\n')
    backend = make(clock, tmp_path, scenario=str(tmp_path / "scenario.toml"))
    watched = task(clock, action="polish")
    clock.advance(1)

    assert "polish" in backend.actions
    assert percent(look(backend, watched)) == 25.0


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (None, "No such file"),
        ("[[job]\n", "Expected"),
        ("[[job]]\nfinsh_after = 1\n", "finsh_after"),
        ('[[job]]\nfail_at = "half"\n', r"\$.job\[0\].fail_at"),
    ],
)
def test_scenario_is_refused_by_name_when_wrong(clock: FakeClock, tmp_path: Path, text: str | None, cause: str) -> None:
    path = tmp_path / "scenario.toml"
    if text is not None:
        path.write_text(text)

    with pytest.raises(ConfigError, match=f"cannot read scenario .*scenario.toml.* of zone play: .*{cause}"):
        make(clock, tmp_path, scenario=str(path))


def test_family_makes_the_backend(clock: FakeClock, tmp_path: Path) -> None:
    context = ZoneContext(name="play", directory=str(tmp_path), poll_timeout=5.0, clock=clock)

    assert "clone_snapshot" in FAMILY.make(FAMILY.settings(), context).actions
