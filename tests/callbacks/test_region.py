"""What the region is told: the table of the service this project replaces, row by row, and tables of a deployment."""

from typing import Any

import pytest
from msgspec import json

from task_daemon.callbacks.region import Route, RouteTable
from task_daemon.core.errors import ConfigError
from task_daemon.core.model import Mode, Owner, Task

MIB = 1024 * 1024
ERROR_BODY = {"__status__": "error", "__reason__": "region_mebsd task failed"}

ROWS = [
    ("clone_snapshot", "finished", [("PUT", "/disks/d1", {"disk": {"status": "ready"}})]),
    ("clone_snapshot", "failed", [("PUT", "/disks/d1", {"disk": {"status": "clone_mebs_snapshot_failed"}})]),
    ("restore_backup", "finished", [("POST", "/disks/d1/notify-restore-mebs-backup-succ", {"disk": {}})]),
    ("restore_backup", "failed", [("POST", "/disks/d1/notify-restore-mebs-backup-fail", {})]),
    ("backup", "finished", [("PUT", "/mebs_backups/d1", {"mebs_backup": {"status": "ready"}})]),
    ("backup", "failed", [("PUT", "/mebs_backups/d1", {"mebs_backup": {"status": "backup_failed"}})]),
    ("delete_backup", "finished", [("POST", "/mebs_backups/d1/notify-delete-succ", {"mebs_backup": {}})]),
    ("delete_backup", "failed", [("POST", "/mebs_backups/d1/notify-delete-fail", {})]),
    *[
        (action, outcome, [])
        for action in ("clone", "create_template", "commit_template", "migrate_template")
        for outcome in ("finished", "failed")
    ],
]

OWN = {"finished": ("POST", "/tasks/17", {}), "failed": ("POST", "/tasks/17", ERROR_BODY)}


def task(**members: Any) -> Task:
    plain: dict[str, Any] = {
        "uid": "u1",
        "id": "d1",
        "action": "backup",
        "zone": "vm1",
        "mode": Mode.TRACK,
        "owner": Owner(0, 0),
        "created_at": 0.0,
        "timeout": 60.0,
        "deadline_at": 60.0,
    }
    return Task(**plain | members)


def calls(table: RouteTable, which: Task, outcome: str, error: str | None = None) -> list[tuple[str, str, Any]]:
    return [(call.method, call.path, json.decode(json.encode(call.body))) for call in table(which, outcome, error)]


@pytest.mark.parametrize(("action", "outcome", "expected"), ROWS)
def test_region_is_told_the_row_of_the_old_table_when_a_task_has_ended(
    action: str, outcome: str, expected: list[tuple[str, str, Any]]
) -> None:
    assert calls(RouteTable(), task(action=action), outcome) == expected


@pytest.mark.parametrize(("action", "outcome", "expected"), ROWS)
def test_region_task_is_told_after_the_action_when_region_task_id_was_given(
    action: str, outcome: str, expected: list[tuple[str, str, Any]]
) -> None:
    assert calls(RouteTable(), task(action=action, region_task_id=17), outcome) == [*expected, OWN[outcome]]


def test_size_is_told_in_whole_mib_when_it_becomes_known() -> None:
    known = task(size=5 * MIB + 1, size_told=True, region_task_id=17)

    assert calls(RouteTable(), known, "size") == [("PUT", "/mebs_backups/d1", {"mebs_backup": {"size": 5}})]


def test_size_comes_with_the_end_of_a_backup_when_it_was_never_told() -> None:
    body = {"mebs_backup": {"status": "ready", "size": 5}}

    assert calls(RouteTable(), task(size=5 * MIB), "finished") == [("PUT", "/mebs_backups/d1", body)]


def test_size_is_left_out_of_the_end_of_a_backup_when_it_was_told_before() -> None:
    body = {"mebs_backup": {"status": "ready"}}

    assert calls(RouteTable(), task(size=5 * MIB, size_told=True), "finished") == [("PUT", "/mebs_backups/d1", body)]


def test_nothing_is_told_of_a_size_when_the_action_is_not_a_backup() -> None:
    assert calls(RouteTable(), task(action="clone", size=MIB), "size") == []


def test_deployment_changes_the_words_when_it_names_them() -> None:
    table = RouteTable(words={"disk_ready": "usable"})

    assert calls(table, task(action="clone_snapshot"), "finished") == [("PUT", "/disks/d1", {"disk": {"status": "usable"}})]
    assert calls(table, task(), "failed")[0][2] == {"mebs_backup": {"status": "backup_failed"}}


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("a/b?c#d", "/disks/a%2Fb%3Fc%23d"),
        ("..", "/disks/%2E%2E"),
        ("größe 1", "/disks/gr%C3%B6%C3%9Fe%201"),
        ("a.b", "/disks/a.b"),
    ],
)
def test_path_stays_one_step_when_the_id_holds_other_characters(name: str, path: str) -> None:
    assert calls(RouteTable([Route("*", "failed", "POST", "/disks/{id}")]), task(id=name), "failed") == [("POST", path, {})]


def test_value_keeps_its_type_when_it_is_exactly_one_placeholder() -> None:
    body = {"n": "{region_task_id}", "text": "no {region_task_id} of {zone}", "list": ["{size_mib}", "{level}", 1, None]}
    table = RouteTable([Route("*", "finished", "POST", "/x", body)], {"level": 3})

    told = {"n": 17, "text": "no 17 of vm1", "list": [3, 1, None]}
    assert calls(table, task(region_task_id=17), "finished") == [("POST", "/x", told)]


def test_error_is_told_when_there_is_one_and_left_out_otherwise() -> None:
    body = {"why": "{error}", "text": "because: {error}"}
    table = RouteTable([Route("*", "failed", "POST", "/x", body)])

    assert calls(table, task(), "failed", "disk {id} full")[0][2] == {"why": "disk {id} full", "text": "because: disk {id} full"}
    assert calls(table, task(), "failed")[0][2] == {"text": "because: "}


def test_route_is_left_out_when_its_body_needs_a_region_task_that_is_not_there() -> None:
    table = RouteTable([Route("*", "finished", "POST", "/x", {"deep": [{"task": "{region_task_id}"}]})])

    assert calls(table, task(), "finished") == []


def test_rows_are_made_in_the_order_of_the_table() -> None:
    table = RouteTable([Route("*", "finished", "POST", "/first"), Route("backup", "finished", "POST", "/second")])

    assert [path for _, path, _ in calls(table, task(), "finished")] == ["/first", "/second"]


def test_all_mistakes_are_reported_when_a_table_is_wrong() -> None:
    routes = [
        Route("backup", "finished", "PUT", "/ok/{id}"),
        Route("", "done", "GET", "disks/{name}", {"a": ["{b}"]}),
        Route("x", "failed", "PUT", "/a b/{size_mib}/{error}"),
    ]
    with pytest.raises(ConfigError) as caught:
        RouteTable(routes, {"id": "x"})

    mistakes = caught.value.mistakes
    assert "the word 'id'" in mistakes[0]
    assert [m.split(":")[0][-len("route 2 of [[region.routes]]") :] for m in mistakes[1:]] == [
        *["route 2 of [[region.routes]]"] * 6,
        *["route 3 of [[region.routes]]"] * 3,
    ]
    for said in (
        "action is empty",
        "outcome is 'done'",
        "method is 'GET'",
        "path is 'disks/{name}'",
        "{name} is no",
        "{b} is no",
    ):
        assert sum(said in mistake for mistake in mistakes) == 1, said
    assert all("accepted" in mistake for mistake in mistakes)
