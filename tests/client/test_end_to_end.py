"""The client against the real daemon, in processes of their own."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import task_client
from task_client import Client, daemon, legacy
from task_client.errors import RequestRefused, WaitTimeout
from task_client.over_httplib2 import Httplib2Transport
from tests.waiting import eventually

STARTERS = 20
SLEEPER = [sys.executable, "-c", "import sys; sys.stdin.read()"]  # ends when its stdin is closed


class Running:
    """A daemon over a workspace; killed at the end, whatever happened."""

    def __init__(self, home: Path) -> None:
        self.workspace = home / "w"
        self.socket = str(home / "d.sock")
        self.workspace.mkdir(mode=0o700)
        self._log = home / "daemon.log"
        self._config = home / "task-daemon.toml"
        self._config.write_text("[daemon]\npoll_interval = 0.2\n")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        arguments = [f"--workspace={self.workspace}", f"--unix-socket={self.socket}", f"--config-file={self._config}"]
        with self._log.open("ab") as output:
            command = [sys.executable, "-m", "task_daemon", *arguments]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        eventually("the daemon accepts connections", self._accepts)

    def _accepts(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self._log.read_text()
        return daemon.is_service_on(self.socket)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(20)


@pytest.fixture
def running(short_path: Path) -> Iterator[Running]:
    made = Running(short_path)
    made.start()
    yield made
    if made.process is not None and made.process.poll() is None:
        made.end(signal.SIGKILL)


@pytest.fixture
def client(running: Running) -> Iterator[Client]:
    with Client(running.socket, timeout=20) as made:
        yield made


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(SLEEPER, stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def track(client: Client, process: subprocess.Popen[bytes], name: str = "job-1") -> task_client.Task:
    return client.register(name, "process", "local", job=str(process.pid))


def test_registered_work_can_be_seen_in_every_way(client: Client, sleeper: subprocess.Popen[bytes]) -> None:
    task = track(client, sleeper)

    eventually("the process was seen", lambda: client.get(task.uid).state == "running")
    assert (task.id, task.action, task.zone, task.mode, task.done) == ("job-1", "process", "local", "track", False)
    assert [each.uid for each in client.list(zone="local", done=False)] == [task.uid]
    assert list(client.list(done=True)) == []
    assert [event.type for event in client.events(task.uid)][:2] == ["task.registered", "task.running"]
    assert {event.uid for event in client.events()} == {task.uid}
    assert client.callbacks(task.uid) == []
    assert isinstance(client.explain(task.uid), dict)


def test_registering_again_changes_nothing(client: Client, sleeper: subprocess.Popen[bytes]) -> None:
    first = track(client, sleeper)

    assert track(client, sleeper).uid == first.uid
    with pytest.raises(RequestRefused, match="labels") as caught:
        client.register("job-1", "process", "local", job=str(sleeper.pid), labels={"a": "b"})
    assert (caught.value.status, caught.value.code) == (409, "conflict")


def test_same_key_answers_the_same_task_and_another_body_is_refused(client: Client, sleeper: subprocess.Popen[bytes]) -> None:
    job = str(sleeper.pid)
    first = client.register("job-1", "process", "local", job=job, idempotency_key="k")

    assert client.register("job-1", "process", "local", job=job, idempotency_key="k").uid == first.uid
    with pytest.raises(RequestRefused) as caught:
        client.register("job-2", "process", "local", job=job, idempotency_key="k")
    assert (caught.value.status, caught.value.code) == (422, "idempotency-key-reused")


def test_many_are_registered_or_none(client: Client, sleeper: subprocess.Popen[bytes]) -> None:
    drafts = [{"id": f"job-{n}", "action": "process", "zone": "local", "job": str(sleeper.pid)} for n in range(3)]

    tasks = client.register_many(drafts)

    assert [task.id for task in tasks] == ["job-0", "job-1", "job-2"]
    with pytest.raises(RequestRefused):
        client.register_many([{**drafts[0], "id": "job-9"}, {**drafts[0], "id": "job-8", "action": "fly"}])
    assert len(list(client.list(page_size=1))) == 3


def test_wait_times_out_while_the_work_goes_on(client: Client, sleeper: subprocess.Popen[bytes]) -> None:
    task = track(client, sleeper)

    with pytest.raises(WaitTimeout):
        client.wait(task.uid, timeout=0.3)


def test_tracking_is_cancelled_only_when_it_is_said_so(client: Client, sleeper: subprocess.Popen[bytes]) -> None:
    task = track(client, sleeper)

    with pytest.raises(RequestRefused) as caught:
        client.cancel(task.uid)
    assert (caught.value.status, caught.value.code) == (409, "not-cancellable")
    assert client.cancel(task.uid, stop_tracking=True).state == "cancelled"
    assert client.wait(task.uid, timeout=10).state == "cancelled"
    assert sleeper.poll() is None
    client.delete(task.uid)
    with pytest.raises(RequestRefused) as caught:
        client.get(task.uid)
    assert (caught.value.status, caught.value.code) == (410, "gone")


@pytest.mark.crash
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_wait_survives_a_restart_of_the_real_daemon(
    running: Running, client: Client, sleeper: subprocess.Popen[bytes], number: signal.Signals
) -> None:
    task = track(client, sleeper)
    eventually("the process was seen", lambda: client.get(task.uid).state == "running")
    ended: list[task_client.Task] = []
    waiter = threading.Thread(target=lambda: ended.append(client.wait(task.uid, timeout=60)))
    waiter.start()

    running.end(number)
    running.start()
    assert sleeper.stdin is not None
    sleeper.stdin.close()
    sleeper.wait(10)
    waiter.join(60)

    assert [each.uid for each in ended] == [task.uid]
    assert ended[0].done


def test_any_of_many_is_waited_for(client: Client, sleeper: subprocess.Popen[bytes]) -> None:
    first, second = track(client, sleeper), track(client, sleeper, "job-2")
    ended: list[task_client.Task] = []
    uids = [first.uid, second.uid]
    waiter = threading.Thread(target=lambda: ended.extend(client.wait_many(uids, until="any", timeout=30)))
    waiter.start()

    client.cancel(second.uid, stop_tracking=True)
    waiter.join(40)

    assert [each.uid for each in ended] == [second.uid]


def test_both_transports_say_the_same(running: Running, client: Client) -> None:
    with Client(transport=Httplib2Transport(running.socket)) as other:
        assert other.ping()
        assert client.ping()
        assert [other.info()[name] for name in ("version", "boot_id")] == [client.info()[name] for name in ("version", "boot_id")]
        assert [each.get("action") for each in other.actions()] == [each.get("action") for each in client.actions()]
        for each in (other, client):
            with pytest.raises(RequestRefused) as caught:
                each.register("d", "fly", "local")
            assert (caught.value.status, caught.value.code) == (400, "unknown-action")


def test_body_of_20_mb_is_refused_as_too_large(running: Running, client: Client) -> None:
    with Client(transport=Httplib2Transport(running.socket)) as other:
        for each in (client, other):
            with pytest.raises(RequestRefused) as caught:
                each.register("d", "command", "local", params={"argv": ["x" * 20_000_000]})
            assert (caught.value.status, caught.value.code) == (413, "too-large")
            assert each.ping()


def test_daemon_tells_that_it_is_ready(client: Client) -> None:
    assert client.healthz()
    eventually("the daemon is ready", client.readyz)


def test_zone_is_paused_and_resumed(client: Client) -> None:
    assert client.zones()
    client.pause_zone("local")
    client.resume_zone("local")
    with pytest.raises(RequestRefused) as caught:
        client.pause_zone("nowhere")
    assert caught.value.status == 404


def test_events_go_on_over_a_restart_without_a_gap(running: Running, client: Client, sleeper: subprocess.Popen[bytes]) -> None:
    track(client, sleeper)
    before = client.cursor()
    running.end(signal.SIGKILL)
    running.start()
    track(client, sleeper, "job-2")

    numbers = [event.seq for event in client.events(after=before)]

    assert numbers == list(range(before + 1, before + 1 + len(numbers)))
    assert numbers


def test_old_callers_register_as_they_did(running: Running, sleeper: subprocess.Popen[bytes]) -> None:
    old = legacy.get_client()

    assert old.sync_request(running.socket, "GET", "ping") == "pong"
    assert legacy.register_task("job-1", "process", "local", unix_socket=running.socket, job=str(sleeper.pid)) != ""
    with pytest.raises(RequestRefused) as caught:
        old.sync_request(running.socket, "POST", "/", body={"action": "fly", "id": "x", "zone": "local"})
    assert caught.value.status == 400
    old.transport(running.socket).close()


def test_taskctl_starts_uses_and_stops_a_daemon(short_path: Path) -> None:
    environment = {**os.environ, "TASK_DAEMON_WORKSPACE_ROOT": str(short_path)}

    def taskctl(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from task_client.cli import main; main()", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)

    started = taskctl("start", "--json", "--wait", "30")
    try:
        assert started.returncode == 0, started.stderr
        assert json.loads(started.stdout)["socket"] == str(short_path / "task_daemon" / "task_daemon.socket")
        assert taskctl("ping").stdout == "pong\n"
        assert taskctl("start").returncode == 0
        done = taskctl("run", "greeting", "command", "local", "--params", '{"argv": ["true"]}', "--wait-timeout", "40")
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        stopped = taskctl("stop")
    assert stopped.returncode == 0, stopped.stderr
    assert taskctl("ping").returncode == 3


def daemons_of(workspace: Path) -> list[int]:
    """Living processes that were given this workspace."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                words = Path("/proc", name, "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if f"--workspace={workspace}".encode() in words:
                found.append(int(name))
    return found


def test_f8_twenty_starters_leave_one_daemon_and_all_are_happy(short_path: Path) -> None:
    workspace = short_path / "w"
    program = (
        "import sys, task_client\n"
        "path = task_client.init_daemon_process(workspace=sys.argv[1], wait=60)\n"
        "print(task_client.Client(path).info()['boot_id'])\n"
    )
    starters = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(workspace)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(STARTERS)
    ]
    try:
        said = [starter.communicate(timeout=90) for starter in starters]
        assert [starter.returncode for starter in starters] == [0] * STARTERS, said
        assert len({words for words, _ in said}) == 1
        assert len(daemons_of(workspace)) == 1
    finally:
        for pid in daemons_of(workspace):
            os.kill(pid, signal.SIGKILL)
        for starter in starters:
            starter.kill()


def test_f8_second_daemon_ends_with_3_and_leaves_the_first_ones_socket(running: Running, client: Client) -> None:
    arguments = [f"--workspace={running.workspace}", f"--unix-socket={running.socket}"]

    second = subprocess.run([sys.executable, "-m", "task_daemon", *arguments], capture_output=True, text=True, timeout=30)

    assert second.returncode == daemon.WORKSPACE_TAKEN, second.stderr
    assert client.ping()
