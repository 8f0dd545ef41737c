from collections.abc import Callable, Iterator

import pytest

from task_client.client import Client
from task_client.over_httplib2 import Httplib2Transport
from task_client.over_requests import RequestsTransport
from task_client.over_socket import SocketTransport
from task_client.transport import Transport
from tests.client.scripted import ScriptedServer


@pytest.fixture
def server(socket_path: str) -> Iterator[ScriptedServer]:
    running = ScriptedServer(socket_path)
    yield running
    running.stop()


@pytest.fixture(params=[SocketTransport, RequestsTransport, Httplib2Transport])
def transport(request: pytest.FixtureRequest, socket_path: str) -> Iterator[Transport]:
    made: Transport = request.param(socket_path)
    yield made
    made.close()


@pytest.fixture
def naps() -> list[float]:
    """The pauses the client made: they are remembered and not slept."""
    return []


@pytest.fixture
def make_client(socket_path: str, naps: list[float]) -> Iterator[Callable[..., Client]]:
    made: list[Client] = []

    def make(timeout: float = 5.0) -> Client:
        made.append(Client(socket_path, timeout=timeout, sleep=naps.append))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def client(make_client: Callable[..., Client]) -> Client:
    return make_client()
