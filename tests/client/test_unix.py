import os
import socket
from pathlib import Path

import pytest

from task_client.errors import DaemonUnreachable
from task_client.transport import Transport
from task_client.unix import LONGEST, open_unix, socket_url, split_socket_url
from tests.client.scripted import Reply, ScriptedServer


@pytest.fixture
def long_path(short_path: Path) -> Path:
    """A socket path the kernel does not take, in a directory that exists."""
    folder = short_path / ("d" * 120)
    folder.mkdir()
    return folder / "s.sock"


def listen(path: Path, name: str) -> socket.socket:
    """Listen at a path of any length, as the daemon does."""
    listener = socket.socket(socket.AF_UNIX)
    directory = os.open(path, os.O_PATH)
    listener.bind(f"/proc/self/fd/{directory}/{name}")
    os.close(directory)
    listener.listen(8)
    return listener


def test_connects_when_the_path_is_longer_than_the_kernel_takes(long_path: Path) -> None:
    assert len(str(long_path)) > LONGEST

    before = len(os.listdir("/proc/self/fd"))
    with listen(long_path.parent, long_path.name), open_unix(str(long_path), 1.0) as connection:
        assert connection.getpeername().endswith(long_path.name)
    assert len(os.listdir("/proc/self/fd")) == before


def test_name_is_refused_when_it_alone_is_too_long(short_path: Path) -> None:
    path = str(short_path / ("n" * 120))

    with pytest.raises(DaemonUnreachable, match=r"name 'nnn.* too long; about 85 bytes are accepted"):
        open_unix(path, 1.0)


def test_refusal_is_final_when_the_path_leads_through_a_file(short_path: Path) -> None:
    (short_path / "file").touch()

    with pytest.raises(DaemonUnreachable, match="not a directory") as caught:
        open_unix(str(short_path / "file" / "s.sock"), 1.0)

    assert not caught.value.retryable


def test_url_keeps_case_spaces_and_other_letters() -> None:
    path = "/Tmp/Söme Dir/A.sock"

    url = socket_url(path, "v1/info")

    assert url == "http+unix://%2FTmp%2FS%C3%B6me%20Dir%2FA.sock/v1/info"
    assert split_socket_url(url) == (path, "/v1/info")


@pytest.mark.parametrize("url", ["http://localhost/x", "http+unix:///x", "http+unix:x"])
def test_url_is_refused_when_it_names_no_socket(url: str) -> None:
    with pytest.raises(ValueError, match="accepted is http"):
        split_socket_url(url)


@pytest.mark.parametrize("name", ["Mixed Case.SOCK", "söcket.sock", "x" * 70 + ".sock", "a%41.sock"])
def test_transports_reach_sockets_of_any_name(short_path: Path, name: str, transport: Transport) -> None:
    server = ScriptedServer(str(short_path / name))
    server.on("GET", "/x", Reply(body=1))
    other = type(transport)(str(short_path / name))  # type: ignore[call-arg]
    try:
        assert other.request("GET", "/x", {}).json() == 1
    finally:
        other.close()
        server.stop()
