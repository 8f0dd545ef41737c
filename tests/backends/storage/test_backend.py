"""Settings, and the last look at a registration."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from task_daemon.backends.storage import ACTIONS, FAMILY
from task_daemon.backends.storage.backend import Settings
from task_daemon.backends.storage.fake_qmp import FakeQmp
from task_daemon.clock import FakeClock
from task_daemon.core.errors import BackendUnreachable, InvalidBody
from task_daemon.core.model import Verdict
from task_daemon.core.ports import Backend, ZoneContext
from tests.backends.storage.making import UID, run, tracked


def backend(qmp: str = "/nowhere/qmp.sock", roots: tuple[str, ...] = ("/images",)) -> Backend:
    return FAMILY.make(Settings(qmp=qmp, roots=roots), ZoneContext("vm1", "/nowhere", 1.0, FakeClock()))


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({}, "qmp"),
        ({"qmp": "run/qmp.sock"}, "must be an absolute path"),
        ({"qmp": "/" + "x" * 107}, "has 108 bytes, and a socket's path has at most 107"),
        ({"qmp": "/q", "roots": ["images"]}, "must be absolute paths"),
        ({"qmp": "/q", "root": ["/images"]}, "unknown field `root`"),
    ],
)
def test_mistake_in_the_settings_is_named(table: dict[str, Any], words: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=words):
        msgspec.convert(table, Settings)


def test_nothing_is_connected_to_when_a_zone_is_made(socket_path: str) -> None:
    with FakeQmp(socket_path) as fake:
        zone = backend(socket_path)
        zone.close()
        assert fake.connections == 0


@pytest.mark.parametrize("member", ["source", "target"])
def test_path_outside_the_roots_is_refused_naming_the_member(member: str) -> None:
    params = {"source": "/images/a", "target": "/images/b", member: "/images/../etc/passwd"}
    with pytest.raises(InvalidBody) as caught:
        backend().admit(run("clone", params))
    assert [pointer for pointer, _ in caught.value.members] == [f"/params/{member}"]


def test_running_is_refused_when_no_roots_are_configured() -> None:
    zone = backend(roots=())
    for params in ({"source": "/images/a", "target": "/images/b"}, {"node": "vol", "target": "/images/b"}):
        with pytest.raises(InvalidBody, match="can only track work; set `roots`"):
            zone.admit(run("clone", params))
    with pytest.raises(InvalidBody, match="can only track work; set `roots`"):
        zone.admit(run("migrate_template", {"node": "vol", "target": "nbd://host/x"}))
    assert zone.admit(tracked()) is None


@pytest.mark.parametrize("job", ["1job", "a b", "a/b", "a:b", "é"])
def test_job_that_qemu_cannot_have_is_refused(job: str) -> None:
    with pytest.raises(InvalidBody) as caught:
        backend().admit(tracked(job=job))
    assert [pointer for pointer, _ in caught.value.members] == ["/job"]


def test_f7_hundred_tasks_are_one_question(socket_path: str) -> None:
    with FakeQmp(socket_path) as fake:
        fake.jobs = [{"id": f"j{n}", "status": "running", "current-progress": n, "total-progress": 100} for n in range(100)]
        zone = backend(socket_path)
        tasks = [tracked(uid=str(n), job=f"j{n}") for n in range(100)]
        reports = zone.poll(tasks)
        zone.close()
        assert {report.verdict for report in reports.values()} == {Verdict.GOING_ON}
        assert len(reports) == 100
        assert fake.commands == ["qmp_capabilities", "query-jobs"]


def test_one_task_that_cannot_be_judged_spoils_no_other(socket_path: str) -> None:
    with FakeQmp(socket_path) as fake:
        fake.jobs = [{"id": "job-1", "status": "concluded"}, {"id": f"task-{UID}", "status": "concluded"}]
        zone = backend(socket_path)
        reports = zone.poll([run("delete_backup", {"no": "longer valid"}), tracked(uid="good")])
        zone.close()
        assert reports[UID].verdict is Verdict.UNKNOWN
        assert reports["good"].verdict is Verdict.SUCCEEDED


def test_nothing_is_known_of_any_task_when_the_zone_is_down(short_path: Path) -> None:
    zone = backend(str(short_path / "none"))
    with pytest.raises(BackendUnreachable):
        zone.poll([tracked()])
    zone.close()


def test_all_actions_of_the_old_service_are_there() -> None:
    old = "clone_snapshot clone backup restore_backup delete_backup create_template commit_template migrate_template"
    assert [action.name for action in ACTIONS] == old.split()
    assert set(backend().actions) == set(old.split())
