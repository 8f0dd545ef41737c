"""The bridge before a real daemon: what it hands on, what it keeps back."""

from pathlib import Path

import pytest

from task_client.dashboard.bridge import SAFETY, Bridge, page_files
from tests.client.dashboard.conftest import Visitor, body, bridged, text
from tests.daemons import Daemon


@pytest.fixture
def inside(visitor: Visitor) -> Visitor:
    assert visitor.enter().status == 200
    return visitor


def test_the_link_opens_the_page_once(bridge: Bridge, visitor: Visitor) -> None:
    entered = visitor.enter()
    again = Visitor(bridge).enter()

    assert (entered.status, again.status) == (200, 403)
    assert bridge.gate.base in text(entered)
    assert "used already" in body(again)["detail"]
    assert "Set-Cookie" not in again.headers
    assert "<title>task-daemon</title>" in text(visitor.get(""))


def test_it_listens_on_loopback_only(bridge: Bridge) -> None:
    assert bridge.server_address[0] == "127.0.0.1"


@pytest.mark.parametrize("path", ["", "main.js", "v1/info"])
def test_nothing_is_shown_without_the_cookie(visitor: Visitor, path: str) -> None:
    refused = visitor.get(path)

    assert refused.status == 403
    assert "open the link" in body(refused)["detail"]


def test_every_request_is_judged_by_host_and_origin_even_with_the_cookie(inside: Visitor) -> None:
    for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "same-site"}):
        assert inside.get("v1/info", headers).status == 403
        assert inside.post("v1/zones/vm1/pause", headers=headers).status == 403
    inside.origin = {}
    assert inside.post("v1/zones/vm1/pause").status == 403


def test_every_answer_carries_what_keeps_a_browser_safe(inside: Visitor) -> None:
    for answer in (inside.get(""), inside.get("v1/info"), inside.get("nowhere"), inside.get("v1/info", {"Host": "evil.example"})):
        assert {name: answer.headers[name] for name in SAFETY} == SAFETY
    assert "unsafe" not in SAFETY["Content-Security-Policy"]


def test_the_page_names_nothing_outside_itself() -> None:
    for name, (kind, content) in page_files().items():
        source = content.decode()
        assert ' style="' not in source or kind.startswith("text/javascript"), f"{name}: the policy allows no inline style"
        for scheme in ("http://", "https://"):
            found = [word for word in source.split() if scheme in word and "www.w3.org" not in word]
            assert not found or name == "libraries/uplot.js", f"{name} names {found}"


def test_the_whole_page_is_there_with_its_types() -> None:
    page = page_files()

    assert page[""][0] == "text/html; charset=utf-8"
    assert page["main.js"][0] == page["libraries/preact.mjs"][0] == "text/javascript; charset=utf-8"
    assert {"style.css", "icon.svg", "libraries/uplot.js", "libraries/uplot.css", "libraries/htm.mjs"} <= set(page)
    assert not any(name.endswith(("README.md", "LICENSE")) for name in page)


def test_the_daemon_sees_the_calling_user_and_its_words_come_back(inside: Visitor, daemon: Daemon) -> None:
    answer = inside.get("v1/info")
    with daemon.client() as client:
        assert body(answer)["you"]["uid"] == client.info()["you"]["uid"]
        task = client.register("handed-on", "clone", "vm1")
    shown = inside.get(f"v1/tasks/{task.uid}")
    refused = inside.post(f"v1/tasks/{task.uid}/cancel")
    stopped = inside.post(f"v1/tasks/{task.uid}/cancel", b'{"stop_tracking": true}')

    assert shown.headers["ETag"]
    assert body(shown)["id"] == "handed-on"
    assert (refused.status, body(refused)["code"]) == (409, "not-cancellable")
    assert stopped.status in (200, 202)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "v1/tasks"),
        ("POST", "v1/tasks:batch"),
        ("GET", "v1/config"),
        ("GET", "v1/log"),
        ("GET", "v1/tasks/../config"),
        ("GET", "v1/tasks/%2e%2e/config"),
        ("POST", "v1/zones/a/b/pause"),
        ("GET", "../etc/passwd"),
        ("GET", "libraries/README.md"),
        ("POST", "main.js"),
    ],
)
def test_what_the_page_does_not_need_is_not_handed_on(inside: Visitor, method: str, path: str) -> None:
    answer = inside.get(path) if method == "GET" else inside.post(path)

    assert answer.status == 404
    assert body(answer)["detail"].startswith(f"cannot find {method} {path}")


def test_a_large_body_is_refused_unread(inside: Visitor) -> None:
    assert inside.post("v1/callbacks/x/ack", b"x", {"Content-Length": "70000"}).status == 413
    assert inside.post("v1/callbacks/x/ack", b"x", {"Content-Length": "-1"}).status == 413


def test_an_absent_daemon_is_told(short_path: Path) -> None:
    with bridged(str(short_path / "nobody.sock")) as bridge:
        visitor = Visitor(bridge)
        visitor.enter()
        answer = visitor.get("v1/info")

    assert (answer.status, body(answer)["code"]) == (502, "unreachable")
    assert "taskctl start" in body(answer)["detail"]
