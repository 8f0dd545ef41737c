"""Callers of the old service switch by changing an import: every old name, doing what it did."""

from collections.abc import Iterator
from pathlib import Path

import httplib2
import pytest

import task_client
from task_client import legacy
from task_client.errors import RequestRefused, ServerError
from task_client.over_httplib2 import HttpUnixConnection
from tests.client.scripted import Reply, ScriptedServer, problem, task


@pytest.fixture
def old_server(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    """Where the old callers expect it: at the default socket."""
    monkeypatch.setenv("TASK_DAEMON_WORKSPACE_ROOT", str(short_path))
    (short_path / "task_daemon").mkdir()
    server = ScriptedServer(str(short_path / "task_daemon" / "task_daemon.socket"))
    server.on("POST", "/", Reply(200, "", {"Location": "/v1/tasks/u1"}))
    server.on("POST", "/v1/tasks", Reply(202, task()))
    yield server
    server.stop()


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("is_service_on", "is_service_on"),
        ("init_daemon_process", "init_daemon_process"),
        ("init_deamon_process", "init_daemon_process"),
        ("stop_daemon_process", "stop_daemon_process"),
        ("stop_deamon_process", "stop_daemon_process"),
        ("register_task", "register_task"),
        ("register_daemon_task", "register_task"),
        ("register_deamon_task", "register_task"),
        ("HttpUnixDomainSocketClient", "HttpUnixDomainSocketClient"),
        ("get_client", "get_client"),
    ],
)
def test_every_old_name_is_there_in_both_places(name: str, meant: str) -> None:
    assert getattr(legacy, name) is getattr(legacy, meant)
    assert getattr(task_client, name) is getattr(legacy, name)


def test_httplib2_knows_the_scheme() -> None:
    assert HttpUnixConnection in httplib2.SCHEME_TO_CONNECTION.values()
    assert "http+unix" in list(httplib2.SCHEME_TO_CONNECTION)


def test_registration_sends_exactly_the_three_members(old_server: ScriptedServer) -> None:
    assert legacy.register_task("disk-1", "clone", "vm1") == ""

    (asked,) = old_server.asked
    assert (asked.method, asked.path, asked.query) == ("POST", "/", [])
    assert asked.body == {"id": "disk-1", "action": "clone", "zone": "vm1"}
    assert asked.headers["content-type"] == "application/json"


@pytest.mark.parametrize("region_task_id", ["t-9", 9, 0, ""])
def test_registration_sends_the_regions_task_when_it_was_given(old_server: ScriptedServer, region_task_id: str | int) -> None:
    legacy.register_task("disk-1", "clone", "vm1", region_task_id)

    assert old_server.asked[0].body == {"id": "disk-1", "action": "clone", "zone": "vm1", "region_task_id": region_task_id}


def test_registration_uses_the_new_surface_when_there_are_extras(old_server: ScriptedServer) -> None:
    found = legacy.register_task("disk-1", "clone", "vm1", 9, job="clone-disk-1", labels={"a": "b"})

    assert isinstance(found, task_client.Task)
    assert found.uid == "u1"
    assert old_server.asked[0].path == "/v1/tasks"
    assert old_server.asked[0].body == {
        "id": "disk-1", "action": "clone", "zone": "vm1", "region_task_id": 9, "job": "clone-disk-1", "labels": {"a": "b"},
    }  # fmt: skip


def test_refusal_is_logged_and_raised_as_server_error(old_server: ScriptedServer, caplog: pytest.LogCaptureFixture) -> None:
    old_server.on("POST", "/", problem(400, "unknown-action", "Invalid action"))

    with pytest.raises(ServerError, match="cannot register fly of disk-1 in zone vm1: Invalid action") as caught:
        legacy.register_task("disk-1", "fly", "vm1")

    assert isinstance(caught.value.__cause__, RequestRefused)
    assert "Invalid action" in caplog.text


def test_callers_own_class_is_raised_when_it_was_put_in(old_server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine(Exception):
        pass

    monkeypatch.setattr(legacy, "server_error", Mine)
    old_server.on("POST", "/", problem(400, "unknown-zone", "no such zone"))

    with pytest.raises(Mine, match="no such zone"):
        legacy.register_task("disk-1", "clone", "nowhere")


def test_server_error_is_raised_when_nobody_is_there(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASK_DAEMON_WORKSPACE_ROOT", str(short_path))

    with pytest.raises(ServerError, match="no such socket"):
        legacy.register_task("disk-1", "clone", "vm1")


@pytest.mark.parametrize("url", ["/x", "x"])
def test_sync_request_takes_json_and_gives_json(server: ScriptedServer, url: str) -> None:
    server.on("PUT", "/x", Reply(200, {"b": 2}))

    assert legacy.HttpUnixDomainSocketClient().sync_request(server.path, "PUT", url, body={"a": 1}) == {"b": 2}
    assert server.asked[0].body == {"a": 1}


def test_sync_request_takes_json_text_as_it_is(server: ScriptedServer) -> None:
    server.on("POST", "/x", Reply(200, b"plain"))

    assert legacy.HttpUnixDomainSocketClient().sync_request(server.path, "post", "/x", body='{"a": 1}') == "plain"
    assert server.asked[0].raw == b'{"a": 1}'


def test_sync_request_raises_when_it_is_refused(server: ScriptedServer) -> None:
    server.on("GET", "/x", problem(404, "not-found", "no such thing"))

    with pytest.raises(RequestRefused, match="no such thing"):
        legacy.HttpUnixDomainSocketClient().sync_request(server.path, "GET", "/x")


def test_default_client_is_one_and_keeps_its_connection(server: ScriptedServer) -> None:
    server.on("GET", "/x", Reply(200, 1))

    assert legacy.get_client() is legacy.get_client()
    for _ in range(3):
        legacy.get_client().sync_request(server.path, "GET", "/x")
    assert server.connections == 1
    legacy.get_client().transport(server.path).close()
