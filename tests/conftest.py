"""Fixtures of the whole suite: every HTTP test goes over a real Unix socket, no test sleeps, blocking the loop fails."""

import asyncio
import inspect
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from tornado.httpclient import AsyncHTTPClient
from tornado.httpserver import HTTPServer
from tornado.netutil import Resolver, bind_unix_socket
from tornado.platform.asyncio import AsyncIOLoop
from tornado.simple_httpclient import SimpleAsyncHTTPClient

from task_daemon.clock import FakeClock
from tests.waiting import PATIENCE


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if inspect.iscoroutinefunction(getattr(item, "obj", None)):
            item.add_marker(pytest.mark.gen_test(timeout=60))
    # Those that are given more time than others come first, lest one worker is at the last of them when the other has done.
    items.sort(key=lambda item: item.get_closest_marker("timeout") is None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What tests of odd bytes have logged must survive the way from a worker of pytest-xdist, which takes UTF-8 only."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report


def missing(what: str) -> None:
    """A service is not there: skip at home, fail in CI."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must have {what}")
    pytest.skip(f"{what} is not installed here")


@pytest.fixture(scope="session")
def qemu() -> None:
    for program in ("qemu-img", "qemu-storage-daemon"):
        if shutil.which(program) is None:
            missing(program)


class UnixResolver(Resolver):
    def initialize(self, path: str) -> None:
        self.path = path

    async def resolve(self, host: str, port: int, family: int = 0) -> list[tuple[int, Any]]:
        return [(socket.AF_UNIX, self.path)]


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory whose path is short enough for socket names (107 bytes)."""
    path = Path(tempfile.mkdtemp(prefix="td-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def socket_path(short_path: Path) -> str:
    return str(short_path / "s.sock")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def io_loop() -> Iterator[AsyncIOLoop]:
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    wrapped = AsyncIOLoop(asyncio_loop=loop, make_current=False)
    yield wrapped
    asyncio.set_event_loop(None)
    wrapped.close(all_fds=True)


@pytest.fixture
def http_server(request: pytest.FixtureRequest, io_loop: AsyncIOLoop, socket_path: str) -> Iterator[HTTPServer]:
    server = HTTPServer(request.getfixturevalue("app"))
    server.add_socket(bind_unix_socket(socket_path, 0o600))
    yield server
    server.stop()
    io_loop.run_sync(server.close_all_connections, timeout=PATIENCE)


@pytest.fixture
def http_client(http_server: HTTPServer, socket_path: str) -> Iterator[AsyncHTTPClient]:
    client = SimpleAsyncHTTPClient(force_instance=True, resolver=UnixResolver(path=socket_path))
    yield client
    client.close()


@pytest.fixture
def base_url() -> str:
    return "http://unix"


@pytest.fixture
def eventually() -> Callable[..., None]:
    """Wait for something that happens in another thread or process; bounded, and says what it waited for."""
    from tests.waiting import eventually as wait

    return wait
