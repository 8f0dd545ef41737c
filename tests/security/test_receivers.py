"""Where callbacks go, and where they never go: real receivers, a real daemon."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from task_client import Client
from task_client.errors import RequestRefused
from task_daemon.callbacks.target import AllowList
from tests.daemons import Daemon
from tests.receivers import Answer, Receiver
from tests.security.people import User, as_root
from tests.waiting import eventually

OWNER, OTHER = User(4301, 4301), User(4302, 4302)
CONFIG = """
[daemon]
socket_mode = "0666"
[zones.play]
backend = "simulated"
scenario = [{ id = "*", finish_after = 0.05 }]
poll_interval = 0.1
[access]
operators = [4301]
[callbacks]
schedule = [0]
timeout = 1
"""


@pytest.fixture
def daemon(short_path: Path) -> Iterator[Daemon]:
    short_path.chmod(0o777)
    with Daemon(short_path, CONFIG) as found:
        yield found


def told(client: Client, uid: str) -> str:
    eventually("the callback is closed", lambda: [each for each in client.callbacks(uid) if each.state != "pending"])
    return client.callbacks(uid)[0].state


@as_root
@pytest.mark.parametrize(("listener", "state", "got"), [(OWNER, "delivered", True), (OTHER, "dead", False)])
def test_f14_socket_receives_only_when_its_listener_is_the_registrant(
    daemon: Daemon, short_path: Path, listener: User, state: str, got: bool
) -> None:
    path = short_path / "r.sock"
    receiver = listener.listen(str(path))
    try:
        body = {"id": "d", "action": "backup", "zone": "play", "params": {}}
        callback = {"url": f"http+unix://{quote(str(path), safe='')}/hook"}
        ((status, task),) = OWNER.ask(daemon.socket, ("POST", "/v1/tasks", body | {"callback": callback}))
        assert status == 202, task
        with daemon.client() as client:
            assert told(client, task["uid"]) == state
            error = client.callbacks(task["uid"])[0].tries[-1]
        assert ("uid 4302 listens there" in str(error)) is not got
    finally:
        receiver.kill()
        output, _ = receiver.communicate(timeout=20)
    assert any(int(line) > 0 for line in output.split()) is got, "nothing is sent before the listener is known"


@pytest.mark.parametrize(
    "host",
    [
        *(
            "10.0.0.1",
            "0.0.0.0",
            "169.254.169.254",
            "[::]",
            "[fe80::1]",
            "[::ffff:10.0.0.1]",
            "[::ffff:0a00:0001]",
            "[::10.0.0.1]",
        ),
        *("2130706433", "0x7f000001", "0x7f.0.0.1", "0177.0.0.1", "127.1", "0", "127.0.0.1.", "[64:ff9b::7f00:1]", "a@127.0.0.1"),
        *("1.2.3.0x4", "%31%32%37.0.0.1", "127。0。0。1"),
    ],
)
def test_f14_address_that_is_not_listed_or_not_plainly_written_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match="cannot use the URL"):
        AllowList().check(f"http://{host}/")


@pytest.mark.parametrize("entry", ["0x7f000001", "2130706433", "127.1", "a.0x1"])
def test_number_is_no_host_name_in_the_list_either(entry: str) -> None:
    from task_daemon.core.errors import ConfigError

    with pytest.raises(ConfigError):
        AllowList([entry])


def test_f14_registration_is_refused_when_its_receiver_is_not_allowed(daemon: Daemon) -> None:
    with daemon.client() as client:
        for url in (
            "http://10.0.0.1/",
            "http://[::ffff:10.0.0.1]/",
            "http://2130706433/",
            "ftp://127.0.0.1/",
            "file:///etc/passwd",
        ):
            with pytest.raises(RequestRefused) as refused:
                client.register("d", "backup", "play", params={}, callback=url)
            assert "/callback/url" in str(refused.value)


def test_redirects_are_not_followed_and_proxies_of_the_environment_not_used(short_path: Path) -> None:
    with Receiver() as proxy, Receiver() as elsewhere, Receiver(then=Answer(307, {"Location": "x"})) as moved:
        moved.answer_with(Answer(307, {"Location": elsewhere.url}))
        proxies = dict.fromkeys(("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"), proxy.url)
        with Daemon(short_path, CONFIG, env={**proxies, "no_proxy": ""}) as daemon, daemon.client() as client:
            task = client.register("d", "backup", "play", params={}, callback=moved.url)
            assert told(client, task.uid) == "dead"
        assert (len(moved.requests), elsewhere.requests, proxy.requests) == (1, [], [])


def test_receiver_that_never_ends_its_answer_takes_its_time_and_no_more(daemon: Daemon) -> None:
    script = [Answer(raw=b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000), Answer(never=True)]
    with Receiver(script) as endless, daemon.client() as client:
        tasks = [client.register(name, "backup", "play", params={}, callback=endless.url) for name in ("a", "b")]
        assert [told(client, task.uid) for task in tasks] == ["dead", "dead"]
