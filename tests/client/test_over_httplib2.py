import threading
from pathlib import Path

import httplib2
import pytest

from task_client.over_httplib2 import UnixHttp
from task_client.unix import socket_url
from tests.client.scripted import Reply, ScriptedServer


def test_plain_httplib2_knows_the_scheme_when_the_module_is_imported(server: ScriptedServer) -> None:
    server.on("GET", "/x", Reply(body=1))
    http = httplib2.Http(timeout=5)

    response, content = http.request(socket_url(server.path, "/x"))

    assert (response.status, content) == (200, b"1")
    assert server.asked[0].headers["host"] == "localhost"
    http.close()


def test_plain_httplib2_gives_up_when_time_is_up(server: ScriptedServer) -> None:
    go = threading.Event()
    server.on("GET", "/x", Reply(after=go))
    http = httplib2.Http(timeout=0.2)

    with pytest.raises(TimeoutError):
        http.request(socket_url(server.path, "/x"))
    go.set()
    http.close()


def test_plain_httplib2_sends_a_post_once_when_the_server_closes_without_an_answer(server: ScriptedServer) -> None:
    server.on("POST", "/x", Reply(drop=True))
    http = httplib2.Http(timeout=5)

    with pytest.raises(ConnectionError):
        http.request(socket_url(server.path, "/x"), "POST", b"{}")

    assert len(server.asked) == 1
    http.close()


def test_sockets_that_differ_in_case_only_are_told_apart(short_path: Path) -> None:
    upper, lower = ScriptedServer(str(short_path / "A.sock")), ScriptedServer(str(short_path / "a.sock"))
    http = UnixHttp(timeout=5)
    try:
        for server, body in ((upper, "upper"), (lower, "lower")):
            server.on("GET", "/x", Reply(body=body))
        found = [http.request(socket_url(server.path, "/x"))[1] for server in (upper, lower)]
    finally:
        http.close()
        upper.stop()
        lower.stop()

    assert found == [b'"upper"', b'"lower"']
