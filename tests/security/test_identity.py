"""Who is who, end to end: real users, a real daemon, and what each of them sees and may do."""

import grp
import json
import os
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from task_daemon.api.access import Access, Peer
from task_daemon.core.model import Owner
from tests.daemons import Daemon
from tests.security.people import User, as_root
from tests.security.processes import answer, connected, request
from tests.waiting import eventually

OPERATOR = User(4301, 4301, (4001,))
OTHER = User(4302, 4302, (4001,))
READER = User(4303, 4303)
ADMIN = User(4304, 4304, (4004,))
STRANGER = User(4305, 4305)
ROOT = User(0, 0)

CONFIG = """
[daemon]
socket_mode = "0666"
[zones.play]
backend = "simulated"
scenario = [{ id = "*", finish_after = 3600 }]
[access]
operators = ["@4001"]
readers = [4303]
admins = ["@4004"]
"""
HOOK = "http://127.0.0.1:9/top-secret-hook"
SECRET_PARAMS = {"size": 4711}
BODY = {"id": "d1", "action": "backup", "zone": "play", "params": {}, "callback": {"url": HOOK}, "x_note": "for my eyes"}


@pytest.fixture
def daemon(short_path: Path) -> Iterator[Daemon]:
    short_path.chmod(0o755)
    with Daemon(short_path, CONFIG) as found:
        yield found


def registered(daemon: Daemon, by: User = OPERATOR) -> dict[str, Any]:
    ((status, task),) = by.ask(daemon.socket, ("POST", "/v1/tasks", BODY))
    assert status == 202, task
    found: dict[str, Any] = task
    return found


@as_root
def test_f14_every_user_has_the_roles_of_its_ids(daemon: Daemon) -> None:
    roles = {}
    for user in (OPERATOR, READER, ADMIN, ROOT):
        ((status, info),) = user.ask(daemon.socket, ("GET", "/v1/info", None))
        assert status == 200
        assert info["you"]["uid"] == user.uid
        roles[user.uid] = info["you"]["roles"]
    assert roles == {4301: ["operator"], 4303: ["reader"], 4304: ["admin"], 0: ["admin", "operator"]}
    answers = STRANGER.ask(
        daemon.socket, ("GET", "/v1/info", None), ("GET", "/v1/tasks", None), ("POST", "/v1/tasks", BODY), ("GET", "/ping", None)
    )
    assert [status for status, _ in answers] == [403, 403, 403, 200]
    assert answers[0][1]["code"] == "forbidden"


@as_root
def test_f14_work_of_others_does_not_exist_for_operators(daemon: Daemon) -> None:
    uid = registered(daemon)["uid"]
    answers = OTHER.ask(
        daemon.socket,
        ("GET", f"/v1/tasks/{uid}", None),
        ("POST", f"/v1/tasks/{uid}/cancel", {}),
        ("DELETE", f"/v1/tasks/{uid}", None),
        ("GET", f"/v1/tasks/{uid}/explain", None),
        ("GET", f"/v1/tasks/{uid}/events", None),
        ("GET", f"/v1/tasks/{uid}/callbacks", None),
        ("GET", "/v1/tasks?owner=4301", None),
        ("GET", "/v1/tasks", None),
        ("GET", "/v1/events", None),
        ("GET", "/v1/callbacks", None),
        ("POST", "/v1/zones/play/pause", {}),
        ("GET", "/v1/config", None),
        ("GET", "/v1/log", None),
        ("GET", "/v1/check", None),
    )
    assert [status for status, _ in answers] == [404] * 6 + [403] + [200] * 3 + [403] * 4
    assert answers[7][1]["tasks"] == []
    assert answers[8][1]["events"] == []
    assert answers[9][1]["callbacks"] == []
    assert uid not in json.dumps([body for _, body in answers[6:]])


@as_root
def test_f14_readers_see_how_work_goes_but_not_what_was_asked_nor_who_is_told(daemon: Daemon) -> None:
    uid = registered(daemon)["uid"]
    OPERATOR.ask(daemon.socket, ("POST", f"/v1/tasks/{uid}/cancel", {}))
    paths = (
        f"/v1/tasks/{uid}",
        "/v1/tasks",
        f"/v1/tasks/{uid}/explain",
        f"/v1/tasks/{uid}/callbacks",
        "/v1/callbacks",
        "/v1/info",
    )
    with daemon.client() as client:
        assert client.wait(uid, 20).state == "cancelled"
        eventually("it was tried to tell", lambda: client.callbacks(uid)[0].attempts > 0)
    hidden = READER.ask(daemon.socket, *(("GET", path, None) for path in paths))
    assert [status for status, _ in hidden] == [200] * len(paths)
    text = json.dumps(hidden)
    assert "127.0.0.1:9" not in text
    assert "for my eyes" not in text
    task = hidden[0][1]
    assert (task["params"], task["callback"], task["flags"], task["state"]) == (None, None, ["redacted"], "cancelled")
    assert hidden[4][1]["callbacks"][0]["redacted"] is True
    for user in (OPERATOR, ADMIN):
        shown = user.ask(daemon.socket, *(("GET", path, None) for path in paths[:5]))
        assert all(HOOK in json.dumps(body) for _, body in shown), user
        assert shown[0][1]["params"] == {}
        assert shown[0][1]["flags"] == []


@as_root
def test_f14_readers_change_nothing_and_admins_everything(daemon: Daemon) -> None:
    uid = registered(daemon)["uid"]
    refused = READER.ask(
        daemon.socket, ("POST", "/v1/tasks", BODY), ("POST", f"/v1/tasks/{uid}/cancel", {}), ("POST", f"/v1/tasks/{uid}/poll", {})
    )
    assert [status for status, _ in refused] == [403] * 3
    allowed = ADMIN.ask(daemon.socket, ("POST", f"/v1/tasks/{uid}/poll", {}), ("POST", f"/v1/tasks/{uid}/cancel", {}))
    assert [status for status, _ in allowed] == [202, 202]


@as_root
def test_f14_only_members_of_the_sockets_group_get_in_when_nothing_else_is_said(short_path: Path) -> None:
    group = next(each for each in grp.getgrall() if each.gr_gid > 0)
    short_path.chmod(0o755)
    member = User(4306, 4306, (group.gr_gid,))
    with Daemon(short_path, f'[daemon]\nsocket_group = "{group.gr_name}"\n[zones.play]\nbackend = "simulated"\n') as daemon:
        status = os.stat(daemon.socket)
        assert (stat.S_IMODE(status.st_mode), status.st_gid) == (0o660, group.gr_gid)
        ((_, info),) = member.ask(daemon.socket, ("GET", "/v1/info", None))
        assert info["you"]["roles"] == ["operator"]
        assert STRANGER.can_open([(daemon.socket, os.O_PATH)]) == [True]
        with pytest.raises(AssertionError, match="PermissionError"):
            STRANGER.ask(daemon.socket, ("GET", "/ping", None))


def test_groups_of_the_caller_are_kept_with_the_task() -> None:
    owner = Access().judge(Peer(5, 6, 7, (8, 9))).owner

    assert owner == Owner(5, 6, 7, (8, 9))
    assert msgspec.json.decode(msgspec.json.encode(owner), type=Owner) == owner
    assert msgspec.json.decode(b'{"uid":5,"gid":6,"pid":7}', type=Owner) == Owner(5, 6, 7)  # as older versions wrote it


class Spy(threading.Thread):
    """Looks as fast as it can for anything below a directory that others than its owner could use."""

    def __init__(self, home: Path, allowed: dict[str, int]) -> None:
        super().__init__(daemon=True)
        self.seen: set[str] = set()
        self.wrong: set[tuple[str, str]] = set()
        self._home = home
        self._allowed = allowed
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.is_set():
            for folder, _, names in os.walk(self._home):
                for path in (folder, *(os.path.join(folder, name) for name in names)):
                    self._look(path)

    def _look(self, path: str) -> None:
        try:
            mode = os.lstat(path).st_mode
        except FileNotFoundError:
            return
        name = os.path.relpath(path, self._home)
        self.seen.add(name)
        if stat.S_IMODE(mode) & 0o077 & ~self._allowed.get(name, 0):
            self.wrong.add((name, stat.filemode(mode)))

    def stop(self) -> None:
        self._over.set()
        self.join(20)


def test_nothing_is_open_to_others_at_any_moment_even_under_a_lax_umask(short_path: Path) -> None:
    home = short_path / "h"
    home.mkdir(mode=0o700)
    daemon = Daemon(home, '[daemon]\nsocket_mode = "0660"\n[zones.play]\nbackend = "simulated"\n')
    given = {"daemon.log": 0o077, "task-daemon.toml": 0o077, "d.sock": 0o060}
    spy = Spy(home, given)
    old = os.umask(0)
    try:
        spy.start()
        with daemon, daemon.client() as client:
            client.register("d1", "backup", "play", params={})
            client.register("c1", "command", "local", params={"argv": ["true"]})
            assert daemon.stop() == 0
    finally:
        os.umask(old)
        spy.stop()
    assert {"d.sock", "w", "w/store.db", "w/lock"} <= spy.seen
    assert {(name, mode) for name, mode in spy.wrong if not name.startswith(".")} == set()
    assert not [each for each in spy.wrong if each[0].startswith(".") and "rw-rw----" not in each[1]], spy.wrong


def test_socket_at_a_path_of_more_than_107_bytes_serves(short_path: Path) -> None:
    deep = short_path / ("a" * 90) / ("b" * 90)
    deep.mkdir(parents=True)
    daemon = Daemon(short_path, arguments=(f"--unix-socket={deep}/s",))
    folder = os.open(deep, os.O_PATH | os.O_DIRECTORY)
    try:
        daemon.start(ready=False)
        eventually("the socket is there", lambda: (deep / "s").exists())
        with connected(f"/proc/self/fd/{folder}/s") as connection:
            connection.sendall(request("GET", "/ping"))
            assert answer(connection)[0] == 200
        assert daemon.stop() == 0
        assert not (deep / "s").exists()
    finally:
        os.close(folder)
        if daemon.ended is None:
            daemon.kill()


def test_socket_of_a_killed_daemon_is_replaced_and_a_live_one_is_not(short_path: Path) -> None:
    with Daemon(short_path) as daemon:
        daemon.kill()
        assert os.path.exists(daemon.socket)
        daemon.start()
        inode = os.stat(daemon.socket).st_ino
        second = Daemon(short_path).start(ready=False)
        assert second.wait() == 3
        assert os.stat(daemon.socket).st_ino == inode
        with daemon.client() as client:
            client.ping()


def test_identity_is_that_of_the_kernel_whatever_a_request_says(short_path: Path) -> None:
    with Daemon(short_path) as daemon, connected(daemon.socket) as connection:
        lies = "X-Forwarded-For: 1.2.3.4\r\nX-Real-IP: 1.2.3.4\r\nAuthorization: Basic cm9vdDp4\r\nX-Uid: 4711\r\n"
        connection.sendall(request("GET", "/v1/info", headers=lies))
        you = json.loads(answer(connection)[2])["you"]
    assert (you["uid"], you["pid"]) == (os.geteuid(), os.getpid())
    assert connection.family == socket.AF_UNIX
