"""Following the events of a real daemon, and of one that misbehaves."""

import itertools
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from task_client import Client, RequestRefused
from task_client.stream import follow
from tests.daemons import Daemon

CONFIG = """
[zones.sim]
backend = "simulated"
poll_interval = 0.1
scenario = [{ id = "long*", finish_after = 30 }, { finish_after = 0.1 }]
"""


@pytest.fixture
def daemon(short_path: Path) -> Iterator[Daemon]:
    with Daemon(short_path, CONFIG) as running:
        yield running


@pytest.mark.parametrize("progress", [False, True])
def test_a_follower_goes_on_across_restarts_without_a_gap(daemon: Daemon, progress: bool) -> None:
    with daemon.client() as client:
        events = client.events(follow=True, progress=progress)
        seen = []
        for number, stop in enumerate((daemon.stop, daemon.kill, None)):
            uid = client.register(f"disk-{number}", "backup", "sim").uid
            for event in events:
                seen.append(event)
                if (event.uid, event.type) == (uid, "task.succeeded"):
                    break
            if stop:
                stop()
                daemon.start()
        events.close()  # type: ignore[attr-defined]
        stored = [event.seq for event in client.events()]

    assert [event.seq for event in seen if event.seq] == stored[: len([event for event in seen if event.seq])]
    assert {event.type for event in seen} >= {"task.registered", "task.succeeded"}


def test_progress_is_typed_and_of_the_asked_task(daemon: Daemon) -> None:
    with daemon.client() as client:
        client.register("long-1", "backup", "sim")
        uid = client.register("long-2", "backup", "sim").uid
        found = next(event for event in client.events(uid, progress=True) if event.type == "progress")

    assert (found.uid, found.seq, found.detail["state"]) == (uid, 0, "running")
    assert found.detail["progress"]["percent"] >= 0
    assert found.time is not None


def test_a_refusal_is_raised(daemon: Daemon) -> None:
    with daemon.client() as client, pytest.raises(RequestRefused) as refused:
        next(client.events("nobody", progress=True))

    assert refused.value.code == "not-found"


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
FIRST = b'retry: 1000\n\nid: 1\nevent: a\ndata: {"seq": 1, "uid": "t"}\n\n: beat\n\nid: 5\n\nid: 6\nevent: b\ndata: {"seq": 6, '
SECOND = b'id: 6\nevent: b\ndata: {"seq": 6, "uid": "t"}\n\n'


def test_what_was_cut_off_is_asked_for_again_and_an_id_alone_moves_the_cursor(short_path: Path) -> None:
    path = str(short_path / "s.sock")
    asked: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()

        def serve() -> None:
            for body in (FIRST, SECOND):
                connection, _ = listening.accept()
                with connection:
                    asked.append(connection.recv(4096))
                    connection.sendall(HEAD + body)

        server = threading.Thread(target=serve)
        server.start()
        pauses: list[float] = []
        found = list(itertools.islice(follow(path, "/v1/events", 0, pauses.append), 2))
        server.join(10)

    assert [event.seq for event in found] == [1, 6]
    assert [request.lower().partition(b"last-event-id: ")[2][:1] for request in asked] == [b"0", b"5"]
    assert len(pauses) == 1


def test_a_daemon_that_is_not_there_yet_is_waited_for(short_path: Path) -> None:
    daemon = Daemon(short_path, CONFIG)
    started: list[str] = []

    def pause(_: float) -> None:
        if not started:
            daemon.start()
            with daemon.client() as other:
                started.append(other.register("disk", "backup", "sim").uid)

    try:
        found = next(Client(daemon.socket, sleep=pause).events(progress=True))
    finally:
        daemon.kill()

    assert [found.uid] == started
