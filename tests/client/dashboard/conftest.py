"""A daemon with a bridge before it, and a browser in front."""

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from task_client.dashboard.bridge import Bridge
from tests.conftest import missing
from tests.daemons import Daemon

CONFIG = """
[callbacks]
schedule = [0, 0.1, 0.1]
[zones.vm1]
backend = "simulated"
poll_interval = 0.2
[[zones.vm1.scenario]]
id = "quick-*"
finish_after = 0.2
[[zones.vm1.scenario]]
id = "full-*"
finish_after = 2
fail_at = 50
message = "No space left on device"
[[zones.vm1.scenario]]
id = "*"
finish_after = 300
[zones.vm2]
backend = "simulated"
poll_interval = 0.5
unreachable = [[0.0, 100000.0]]
"""

CHROMIUM = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def bridged(unix_socket: str) -> Iterator[Bridge]:
    with Bridge(unix_socket) as bridge:
        thread = threading.Thread(target=bridge.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield bridge
        bridge.shutdown()
        thread.join(10)


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    home = Path(mkdtemp(prefix="td-"))
    with Daemon(home, CONFIG) as running:
        yield running
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def bridge(daemon: Daemon) -> Iterator[Bridge]:
    with bridged(daemon.socket) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """For a module and not for the session: while it is there, no other loop can run in this thread."""
    path = shutil.which("chromium")
    if path is None:
        missing("chromium")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=CHROMIUM)
        yield chromium
        chromium.close()


class Visitor:
    """A browser that is none: sends what a test says, keeps the cookie."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self.home = {"Host": bridge.gate.hosts[0]}
        self.origin = {"Origin": f"http://{bridge.gate.hosts[0]}"}
        self.cookie: dict[str, str] = {}

    def send(self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes | None = None) -> HTTPResponse:
        connection = HTTPConnection("127.0.0.1", self._bridge.server_address[1], timeout=30)
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in {**self.home, **self.cookie, **(headers or {})}.items():
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        answer.text = answer.read().decode()  # type: ignore[attr-defined]
        connection.close()
        return answer

    def enter(self) -> HTTPResponse:
        answer = self.send("GET", "/open?" + self._bridge.link.partition("?")[2])
        self.cookie = {"Cookie": (answer.headers["Set-Cookie"] or "").partition(";")[0]}
        return answer

    def get(self, path: str, headers: dict[str, str] | None = None) -> HTTPResponse:
        return self.send("GET", self._bridge.gate.base + path, headers)

    def post(self, path: str, body: bytes = b"{}", headers: dict[str, str] | None = None) -> HTTPResponse:
        return self.send(
            "POST", self._bridge.gate.base + path, {"Content-Type": "application/json", **self.origin, **(headers or {})}, body
        )


def text(answer: HTTPResponse) -> str:
    found: str = answer.text  # type: ignore[attr-defined]
    return found


def body(answer: HTTPResponse) -> Any:
    return json.loads(text(answer))


@pytest.fixture
def visitor(bridge: Bridge) -> Visitor:
    return Visitor(bridge)
