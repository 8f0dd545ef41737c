"""The connection against a monitor that misbehaves in every measured manner; the real one is in tests/live."""

import gc
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from task_daemon.backends.storage.fake_qmp import GREETINGS, REPLIES, FakeQmp
from task_daemon.backends.storage.qmp import CommandRefused, QmpConnection
from task_daemon.core.errors import BackendUnreachable
from tests.waiting import eventually

Connect = Callable[..., QmpConnection]
IN_TIME = "cannot reach storage (?!.*no result within)"  # that is what a worker says which gave up waiting for the loop


@pytest.fixture
def connect(socket_path: str) -> Iterator[Connect]:
    made: list[QmpConnection] = []

    def make(path: str = socket_path, timeout: float = 5.0) -> QmpConnection:
        made.append(QmpConnection(path, timeout))
        return made[-1]

    yield make
    for connection in made:
        connection.close()


def test_connection_is_held_over_many_calls(socket_path: str, connect: Connect) -> None:
    with FakeQmp(socket_path) as fake:
        connection = connect()
        for _ in range(20):
            assert connection.execute("query-jobs", expect=list) == []
        assert fake.connections == 1


def test_answer_says_which_process_gave_it(socket_path: str, connect: Connect) -> None:
    with FakeQmp(socket_path):
        peer = connect().ask("query-version").peer
        assert peer.identity is not None
        assert peer.identity.split(".")[0] == str(os.getpid())
        assert (peer.uid, peer.gid) == (os.geteuid(), os.getegid())


@pytest.mark.parametrize("manner", sorted(GREETINGS))
def test_bad_greeting_is_unreachable_within_the_time_out_and_good_again_later(
    manner: str, socket_path: str, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    with FakeQmp(socket_path, greeting=manner) as fake, caplog.at_level(logging.WARNING):
        connection = connect(timeout=0.5)
        with pytest.raises(BackendUnreachable, match=IN_TIME):
            connection.execute("query-jobs", expect=list)
        fake.greeting = ""
        assert connection.execute("query-jobs", expect=list) == []
    gc.collect()
    assert [record for record in caplog.records if record.name.startswith(("qemu", "asyncio"))] == []


@pytest.mark.parametrize("manner", sorted(set(REPLIES) - {"a refusal"}))
def test_bad_reply_is_unreachable_within_the_time_out_and_good_again_later(
    manner: str, socket_path: str, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    with FakeQmp(socket_path, reply=manner) as fake, caplog.at_level(logging.WARNING):
        connection = connect(timeout=0.5 if manner != "a huge line" else 5.0)
        with pytest.raises(BackendUnreachable, match=IN_TIME):
            connection.execute("query-jobs", expect=list)
        fake.reply = ""
        assert connection.execute("query-jobs", expect=list) == []
        assert fake.connections == 2
    gc.collect()
    assert [record for record in caplog.records if record.name.startswith(("qemu", "asyncio"))] == []


def test_connection_stays_when_a_command_is_refused(socket_path: str, connect: Connect) -> None:
    with FakeQmp(socket_path, reply="a refusal") as fake:
        connection = connect()
        for _ in range(2):
            with pytest.raises(CommandRefused, match="cannot execute job-cancel: no"):
                connection.execute("job-cancel", {"id": "x"})
        assert fake.connections == 1


def test_new_connection_is_made_at_once_when_the_old_one_ended_while_idle(socket_path: str, connect: Connect) -> None:
    connection = connect()
    with FakeQmp(socket_path):
        connection.execute("query-jobs", expect=list)
    os.unlink(socket_path)
    with FakeQmp(socket_path) as fake:
        assert connection.execute("query-jobs", expect=list) == []
        assert fake.connections == 1


def test_error_names_the_missing_socket(short_path: Path, connect: Connect) -> None:
    with pytest.raises(BackendUnreachable, match=r"nothing\.sock: no such socket"):
        connect(str(short_path / "nothing.sock")).execute("query-jobs", expect=list)


def test_error_says_that_nobody_listens(socket_path: str, connect: Connect) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(socket_path)
    with pytest.raises(BackendUnreachable, match="nobody listens"):
        connect().execute("query-jobs", expect=list)


def test_error_suspects_another_client_when_nobody_accepts(socket_path: str, connect: Connect) -> None:
    """As a real monitor does with its second and third client: no greeting, then a full queue."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(socket_path)
        listener.listen(0)
        with pytest.raises(BackendUnreachable, match=r"no greeting within 0\.2 s; another client may hold this monitor"):
            connect(timeout=0.2).execute("query-jobs", expect=list)
        with pytest.raises(BackendUnreachable, match="queue of waiting clients is full; another client may hold this monitor"):
            connect(timeout=0.2).execute("query-jobs", expect=list)


def test_silent_zone_does_not_delay_another_one_when_all_share_one_thread(short_path: Path, connect: Connect) -> None:
    with FakeQmp(str(short_path / "a")), FakeQmp(str(short_path / "b"), reply="silence") as silent:
        hung = connect(str(short_path / "b"), timeout=2.0)
        caught: list[BaseException] = []
        thread = threading.Thread(target=lambda: caught.append(_error_of(hung)))
        thread.start()
        eventually("it hangs", lambda: "query-jobs" in silent.commands)
        good = connect(str(short_path / "a"))
        for _ in range(10):
            good.execute("query-jobs", expect=list)
        assert thread.is_alive(), "the ten answers came after its time was up"
        assert [t.name for t in threading.enumerate()].count("qmp") == 1
        thread.join(10)
        assert "no answer to query-jobs within 2 s" in str(caught[0])


def test_only_telling_events_wake_and_none_is_kept(socket_path: str, connect: Connect) -> None:
    woken: list[int] = []
    with FakeQmp(socket_path) as fake:
        connection = connect()
        connection.on_change(lambda: woken.append(1))
        connection.execute("query-jobs", expect=list)
        for status in ("created", "running", "aborting", "null"):
            fake.send_event("JOB_STATUS_CHANGE", status=status, id="j")
        fake.send_event("BLOCK_JOB_COMPLETED", device="j")
        for status in ("ready", "pending", "concluded"):
            fake.send_event("JOB_STATUS_CHANGE", status=status, id="j")
        eventually("three wakes", lambda: len(woken) >= 3)
        connection.execute("query-jobs", expect=list)
        assert len(woken) == 3
        assert connection._client is not None
        assert len(connection._client.events.history) == 0
        assert connection._client.events.empty()


def test_connection_lives_on_when_the_listener_of_events_raises(socket_path: str, connect: Connect) -> None:
    with FakeQmp(socket_path) as fake:
        connection = connect()
        woken = threading.Event()

        def wake() -> None:
            woken.set()
            raise RuntimeError("wrong")

        connection.on_change(wake)
        connection.execute("query-jobs", expect=list)
        fake.send_event("JOB_STATUS_CHANGE", status="concluded", id="j")
        assert woken.wait(5)
        connection.execute("query-jobs", expect=list)
        assert fake.connections == 1


def test_closed_connection_answers_no_more_and_its_thread_ends(socket_path: str, connect: Connect) -> None:
    with FakeQmp(socket_path):
        connection = connect()
        connection.execute("query-jobs", expect=list)
        connection.close()
        connection.close()
        with pytest.raises(BackendUnreachable, match="was closed"):
            connection.execute("query-jobs", expect=list)
    eventually("the loop thread has ended", lambda: "qmp" not in [t.name for t in threading.enumerate()])


def _error_of(connection: QmpConnection) -> BaseException:
    try:
        connection.execute("query-jobs", expect=list)
    except BackendUnreachable as error:
        return error
    raise AssertionError("answered")


def test_the_library_says_nothing_of_what_we_say_ourselves() -> None:
    """A time-out in its cleaning up is told at CRITICAL, with a traceback and the request to report it (seen under load)."""
    assert not logging.getLogger("qemu.qmp.protocol").isEnabledFor(logging.CRITICAL)
