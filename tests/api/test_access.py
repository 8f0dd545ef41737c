"""Who calls, as the kernel says, and what they may do."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tornado.iostream import IOStream

from task_daemon.api.access import Access, Level, Members, Peer, peer_of
from task_daemon.core.errors import Forbidden

OPERATORS = Members(uids=frozenset({10}), gids=frozenset({70}))
READERS = Members(uids=frozenset({20}))
ADMINS = Members(uids=frozenset({30}), gids=frozenset({80}))

PEOPLE = {
    "root": Peer(0, 0),
    "the daemon": Peer(os.geteuid(), 5),
    "admin": Peer(30, 30),
    "admin by group": Peer(31, 31, groups=(80,)),
    "operator": Peer(10, 10),
    "operator by primary group": Peer(11, 70),
    "operator by supplementary group": Peer(12, 12, groups=(1, 70)),
    "reader": Peer(20, 20),
    "nobody": Peer(65534, 65534),
    "not a Unix socket": Peer(-1, -1),
}

MAY = {
    "root": {Level.OPEN, Level.READ, Level.WRITE, Level.ADMIN},
    "the daemon": {Level.OPEN, Level.READ, Level.WRITE, Level.ADMIN},
    "admin": {Level.OPEN, Level.READ, Level.WRITE, Level.ADMIN},
    "admin by group": {Level.OPEN, Level.READ, Level.WRITE, Level.ADMIN},
    "operator": {Level.OPEN, Level.READ, Level.WRITE},
    "operator by primary group": {Level.OPEN, Level.READ, Level.WRITE},
    "operator by supplementary group": {Level.OPEN, Level.READ, Level.WRITE},
    "reader": {Level.OPEN, Level.READ},
    "nobody": {Level.OPEN},
    "not a Unix socket": {Level.OPEN},
}


@pytest.fixture
def access() -> Access:
    return Access(ADMINS, OPERATORS, READERS)


@pytest.mark.parametrize("who", PEOPLE)
@pytest.mark.parametrize("level", Level)
def test_f14_each_level_lets_in_whom_it_should(access: Access, who: str, level: Level) -> None:
    caller = access.judge(PEOPLE[who])

    if level in MAY[who]:
        caller.check(level)
    else:
        with pytest.raises(Forbidden) as caught:
            caller.check(level)
        assert f"user {PEOPLE[who].uid}" in caught.value.detail
        assert "[access]" in caught.value.detail


def test_f14_tasks_of_others_are_seen_by_readers_and_admins_only(access: Access) -> None:
    assert [access.judge(PEOPLE[who]).sees(99) for who in ("root", "reader", "operator", "nobody")] == [True, True, False, False]
    assert access.judge(PEOPLE["operator"]).sees(10)


def test_f14_tasks_of_others_are_changed_by_admins_only(access: Access) -> None:
    access.judge(PEOPLE["admin"]).check_change(99, "task t")
    access.judge(PEOPLE["operator"]).check_change(10, "task t")
    for who in ("operator", "reader"):
        with pytest.raises(Forbidden, match="task t: it belongs to user 99"):
            access.judge(PEOPLE[who]).check_change(99, "task t")


def test_roles_add_up_when_somebody_has_several(access: Access) -> None:
    caller = access.judge(Peer(20, 20, groups=(70,)))

    assert caller.roles == ["operator", "reader"]
    assert caller.sees(99)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        yield ours, theirs


def test_the_kernel_names_the_peer(pair: tuple[socket.socket, socket.socket]) -> None:
    peer = peer_of(pair[0])

    assert peer == Peer(os.geteuid(), os.getegid(), os.getpid(), tuple(os.getgroups()))


def test_a_peer_over_the_network_is_nobody() -> None:
    with socket.socket(socket.AF_INET) as other:
        assert peer_of(other).uid == -1


async def test_the_peer_is_asked_for_once_when_a_connection_is_used_again(pair: tuple[socket.socket, socket.socket]) -> None:
    asked = []
    access = Access(peer=lambda sock: asked.append(sock) or Peer(5, 5))  # type: ignore[func-returns-value]
    stream = IOStream(pair[0])

    assert access.caller(stream) is access.caller(stream)
    assert len(asked) == 1


AS_SOMEBODY_ELSE = """
import os, socket, sys
os.setgroups([70, 71]), os.setgid(4322), os.setuid(4321)
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.recv(1)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_f14_another_user_is_recognised_with_its_groups_when_it_connects(short_path: Path) -> None:
    path = str(short_path / "s")
    short_path.chmod(0o755)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        Path(path).chmod(0o666)
        process = subprocess.Popen([sys.executable, "-S", "-c", AS_SOMEBODY_ELSE, path])
        try:
            listener.settimeout(20)
            connection, _ = listener.accept()
            with connection:
                peer = peer_of(connection)
        finally:
            process.wait(timeout=20)

    assert peer == Peer(4321, 4322, process.pid, (70, 71))
    assert Access(operators=Members(gids=frozenset({70}))).judge(peer).roles == ["operator"]
