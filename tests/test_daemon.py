"""The whole daemon: what it takes over from its past, what a failing disk does to it, and that everybody is told."""

import base64
import json
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook

from task_client import Client
from task_client.errors import ClientError, RequestRefused
from task_client.over_requests import RequestsTransport
from tests.daemons import Daemon
from tests.disk_faults import DiskFaults
from tests.receivers import Answer, Receiver, RegionServer, Request
from tests.waiting import eventually

GOLDEN = Path(__file__).parent / "data" / "data.keep"
PATIENT = "[callbacks]\nschedule = [0, 0.1, 0.1, 0.2, 0.2, 0.5, 0.5, 1, 1, 2, 2, 5, 5, 5, 5]\n"
SIMULATED = """
[daemon]
poll_interval = 0.1
[zones.{zone}]
backend = "simulated"
scenario = [
    {{ id = "long-*", finish_after = 1000 }},
    {{ id = "bad-*", fail_at = 50, finish_after = 0.2, message = "No space left on device" }},
    {{ id = "*", finish_after = 0.2, size = 7340032 }},
]
"""
SIM = SIMULATED.format(zone="sim")


def register_long(client: Client, count: int) -> list[str]:
    drafts = [{"id": f"long-{n}", "action": "backup", "zone": "sim", "labels": {"n": "x" * 200}} for n in range(count)]
    return [task.uid for task in client.register_many(drafts)]


def salvage(client: Client) -> Any:
    return client.info()["status"]["salvage"]


# --------------------------------------------------------------------------- what the past has left


def keep(daemon: Daemon, content: bytes) -> Path:
    daemon.workspace.mkdir(mode=0o700)
    path = daemon.workspace / "data.keep"
    path.write_bytes(content)
    return path


def kept(daemon: Daemon) -> list[str]:
    return sorted(path.name for path in daemon.workspace.glob("data.keep*"))


def test_f3_tasks_of_the_old_service_are_watched_on_and_told_to_the_region(short_path: Path) -> None:
    """First without the zone they are in: they are kept. Then with it: each ends, and the region hears of all."""
    entries = json.loads(GOLDEN.read_text())
    daemon = Daemon(short_path, SIM)
    keep(daemon, GOLDEN.read_bytes())
    with daemon, daemon.client() as client:
        found = {task.id: task for task in client.list(done=False)}
        assert set(found) == {entry["id"] for entry in entries}
        left = {entry["id"]: max(60, 43200 - 10 * entry["count"]) for entry in entries}
        assert {name: task.timeout for name, task in found.items()} == left
        assert {task.zone for task in found.values()} == {"z1"}
        assert kept(daemon) == ["data.keep.imported"]
        assert (daemon.workspace / "data.keep.imported").read_bytes() == GOLDEN.read_bytes()
        assert daemon.stop() == 0
    with region_server() as region:
        config = SIMULATED.format(zone="z1") + PATIENT + region_table(region, short_path)
        with Daemon(short_path, config) as daemon, daemon.client() as client:
            ended = client.wait_many([task.uid for task in found.values()], timeout=20)
            assert {task.state for task in ended} == {"succeeded"}
            eventually("all is told", lambda: not client.callbacks(state="pending"))
            assert {each.state for each in client.callbacks()} == {"delivered"}
            assert daemon.stop() == 0
    for entry in entries:
        if entry["region_task_id"] is not None:
            assert ("POST", f"/tasks/{entry['region_task_id']}", {}) in region.calls
    assert ("PUT", "/disks/vol-0001", {"disk": {"status": "ready"}}) in region.calls
    sizes = [body["mebs_backup"].get("size") for _, path, body in region.calls if path == "/mebs_backups/bk-0004"]
    assert [size for size in sizes if size is not None] == [7]
    assert [body for _, path, body in region.calls if path == "/mebs_backups/bk-0005"] == [{"mebs_backup": {"status": "ready"}}]


@pytest.mark.parametrize("content", [GOLDEN.read_bytes()[:700], b"", b'{"id": 1}'])
def test_f3_daemon_starts_and_keeps_the_file_aside_when_it_is_torn(content: bytes, short_path: Path) -> None:
    daemon = Daemon(short_path, SIM)
    keep(daemon, content)
    with daemon, daemon.client() as client:
        assert list(client.list()) == []
        (aside,) = kept(daemon)
        assert aside.startswith("data.keep.damaged-")
        assert (daemon.workspace / aside).read_bytes() == content
        assert "a JSON list of tasks was expected" in daemon.said()


def test_daemon_says_what_it_saved_and_goes_on_when_pages_of_the_store_are_garbage(short_path: Path) -> None:
    with Daemon(short_path, SIM) as daemon, daemon.client() as client:
        registered = set(register_long(client, 300))
        assert daemon.stop() == 0
        store = daemon.workspace / "store.db"
        pages = store.stat().st_size // 4096
        with store.open("r+b") as file:
            for page in range(pages // 3, pages // 3 + 8):
                file.seek(page * 4096)
                file.write(b"\xa5" * 4096)
        daemon.start()
        found = {task.uid for task in client.list(page_size=500)}
        told = salvage(client)
        assert found <= registered
        assert len(found) >= 100, "more could have been saved"
        assert told["kept"]["task"] == len(found)
        assert (daemon.workspace / told["file"]).exists()
        assert len(found) == 300 or told["lost"]["task"] or "task" in told["incomplete"]
        assert "the store was damaged" in daemon.said()
        assert client.register("new", "backup", "sim", wait=20).state == "succeeded"
        assert daemon.stop() == 0
        daemon.start()
        assert salvage(client) is None
        assert {task.uid for task in client.list(page_size=500, done=False)} == found


def test_daemon_starts_with_nothing_and_gives_no_number_twice_when_the_head_of_the_store_is_zeroed(short_path: Path) -> None:
    with Daemon(short_path, SIM) as daemon, daemon.client() as client:
        register_long(client, 20)
        cursor = client.cursor()
        assert daemon.stop() == 0
        store = daemon.workspace / "store.db"
        with store.open("r+b") as file:
            file.write(bytes(100))
        damaged = store.read_bytes()
        daemon.start()
        told = salvage(client)
        assert told["reason"] == "file is not a database"
        assert "task" in told["incomplete"]
        assert (daemon.workspace / told["file"]).read_bytes() == damaged
        assert client.register("new", "backup", "sim", wait=20).state == "succeeded"
        assert client.cursor() > cursor + 1000


# --------------------------------------------------------------------------- a disk that fails


@pytest.fixture
def disk(short_path: Path) -> DiskFaults:
    return DiskFaults(short_path)


class Registrants:
    """Three threads that register as fast as they can, each until it is refused or cut off; remembers every answer."""

    def __init__(self, socket_path: str) -> None:
        self.acknowledged: dict[str, str] = {}
        self.refusals: list[tuple[int, Any]] = []
        self._socket = socket_path
        self._threads = [threading.Thread(target=self._register, args=(number,), daemon=True) for number in range(3)]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()

    def _register(self, number: int) -> None:
        transport = RequestsTransport(self._socket)
        for count in range(5000):
            name = f"long-{number}-{count}"
            body = json.dumps({"id": name, "action": "backup", "zone": "sim"}).encode()
            try:
                answer = transport.request("POST", "/v1/tasks", {"Content-Type": "application/json"}, body)
            except ClientError:
                break
            if answer.status != 202:
                self.refusals.append((answer.status, answer.json()["code"]))
                break
            self.acknowledged[name] = answer.json()["uid"]
        transport.close()


def test_i10_outcome_is_said_to_be_unknown_and_the_daemon_stops_with_4_when_a_commit_fails(
    short_path: Path, disk: DiskFaults
) -> None:
    with Daemon(short_path, SIM, env=disk.env) as daemon:
        with daemon.client() as client:
            client.pause_zone("sim")  # so that it is a registration that fails and not a poll
        registrants = Registrants(daemon.socket)
        eventually("many are acknowledged", lambda: len(registrants.acknowledged) > 50)
        disk.fail_sync(True)
        assert daemon.wait() == 4
        registrants.join()
        disk.fail_sync(False)
        assert "the store failed and the daemon stops: disk I/O error" in daemon.said()
        assert (503, "outcome-unknown") in registrants.refusals
        assert {code for _, code in registrants.refusals} <= {"outcome-unknown", "degraded", "draining"}
        daemon.start()
        with daemon.client() as client:
            assert salvage(client) is None
            found = {task.uid for task in client.list(page_size=500)}
        assert [uid for uid in registrants.acknowledged.values() if uid not in found] == []
        assert len(found) <= len(registrants.acknowledged) + 3, "more than those whose outcome was unknown"
        assert daemon.stop() == 0


def test_registration_is_refused_with_507_and_the_daemon_goes_on_when_the_disk_is_full(
    short_path: Path, disk: DiskFaults
) -> None:
    with Receiver() as receiver, Daemon(short_path, SIM + PATIENT, env=disk.env) as daemon, daemon.client() as client:
        before = client.register("before", "backup", "sim", callback=receiver.url)
        disk.fill(True)
        with pytest.raises(RequestRefused) as caught:
            client.register("meanwhile", "backup", "sim")
        assert (caught.value.status, caught.value.code) == (507, "store-full")
        assert client.get(before.uid).id == "before"
        eventually("the end cannot be stored", lambda: "cannot write to the store" in daemon.said())
        disk.fill(False)
        assert client.register("after", "backup", "sim", wait=20).state == "succeeded"
        assert client.wait(before.uid, 20).state == "succeeded"
        receiver.wait(1)
        assert {task.id for task in client.list()} == {"before", "after"}
        assert daemon.stop() == 0


@pytest.mark.parametrize("end", [Daemon.stop, Daemon.kill], ids=["stopped", "killed"])
def test_i1_exit_is_4_and_nothing_is_lost_when_the_disk_is_full_at_the_start(
    end: Callable[[Daemon], object], short_path: Path, disk: DiskFaults
) -> None:
    with Daemon(short_path, SIM, env=disk.env) as daemon:
        with daemon.client() as client:
            (uid,) = register_long(client, 1)
        end(daemon)
        disk.fill(True)
        assert daemon.run() == 4
        assert "the store" in daemon.said().splitlines()[-1]
        assert "Traceback" not in daemon.said()
        disk.fill(False)
        daemon.start()
        with daemon.client() as client:
            assert client.get(uid).id == "long-0"
            assert salvage(client) is None


# --------------------------------------------------------------------------- webhooks


def types(requests: list[Request]) -> list[str]:
    return [request.json()["type"] for request in requests]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def test_callback_is_signed_with_the_named_key(short_path: Path) -> None:
    secret = "whsec_" + base64.b64encode(os.urandom(32)).decode()
    key = short_path / "key"
    key.touch(0o600)
    key.write_text(f"{secret}\n")
    config = SIM + f'[callbacks.keys]\nmain = "{key}"\n'
    with Receiver() as receiver, Daemon(short_path, config) as daemon, daemon.client() as client:
        task = client.register("d1", "backup", "sim", callback={"url": receiver.url, "secret": "main"})
        (request,) = receiver.wait(1)
        body = Webhook(secret).verify(request.body, request.headers)
        assert (body["type"], body["data"]["task"]["uid"]) == ("task.succeeded", task.uid)
        assert secret not in json.dumps(client.get(task.uid).raw)
        with pytest.raises(RequestRefused, match="main"):
            client.register("d2", "backup", "sim", callback={"url": receiver.url, "secret": "other"})


def test_f4_callbacks_arrive_once_and_in_order_when_the_receiver_was_down_and_then_failing(short_path: Path) -> None:
    """Nobody listens at first; then the receiver answers 500, drops one, and at last accepts."""
    port = free_port()
    with Daemon(short_path, SIM + PATIENT) as daemon, daemon.client() as client:
        hook = {"url": f"http://127.0.0.1:{port}/hook", "events": ["size", "finished"]}
        task = client.register("bad-1", "backup", "sim", callback=hook)
        good = client.register("d1", "backup", "sim", callback=hook)
        assert client.wait(task.uid, 20).state == "failed"
        eventually("it was tried in vain", lambda: all(each.attempts for each in client.callbacks(good.uid)[:1]))
        with Receiver([500, Answer(drop=True)], port=port) as receiver:
            eventually("all is told", lambda: not client.callbacks(state="pending"))
            accepted = receiver.wait(5)[2:]
        by_task = {uid: types([r for r in accepted if r.json()["data"]["task"]["uid"] == uid]) for uid in (task.uid, good.uid)}
        assert by_task == {task.uid: ["task.failed"], good.uid: ["task.size", "task.succeeded"]}
        failed = next(r for r in accepted if r.json()["type"] == "task.failed").json()["data"]["task"]
        assert failed["error"] == {"kind": "backend", "message": "No space left on device", "backend": None}
        for callback in client.callbacks():
            assert callback.state == "delivered"
            assert callback.tries[-1]["status"] == 200


def test_callback_comes_again_with_the_same_id_when_the_daemon_was_killed_before_it_knew(short_path: Path) -> None:
    taken = threading.Event()
    with Receiver([Answer(after=taken)]) as receiver, Daemon(short_path, SIM + PATIENT) as daemon:
        with daemon.client() as client:
            client.register("d1", "backup", "sim", callback=receiver.url)
        receiver.wait(1)
        daemon.kill()
        taken.set()
        daemon.start()
        first, second = receiver.wait(2)
        assert first.headers["webhook-id"] == second.headers["webhook-id"]
        assert first.body == second.body


def test_callback_arrives_on_the_unix_socket_of_the_registrant(short_path: Path) -> None:
    with Receiver(path=str(short_path / "hook.sock")) as receiver, Daemon(short_path, SIM) as daemon, daemon.client() as client:
        client.register("d1", "backup", "sim", callback=receiver.url)
        (request,) = receiver.wait(1)
        assert (request.path, types([request])) == ("/hook", ["task.succeeded"])


def test_dead_callback_is_listed_and_arrives_when_it_is_replayed(short_path: Path) -> None:
    with Receiver([410]) as receiver, Daemon(short_path, SIM) as daemon:
        with daemon.client() as client:
            task = client.register("d1", "backup", "sim", callback=receiver.url)
            eventually("the callback is dead", lambda: client.callbacks(state="dead"))
        assert daemon.stop() == 0
        daemon.start()
        with daemon.client() as client:
            (dead,) = client.callbacks(task.uid)
            assert (dead.state, dead.tries[-1]["status"]) == ("dead", 410)
            client.replay(dead.id)
            receiver.wait(2)
            eventually("it is delivered", lambda: client.callbacks(task.uid)[0].state == "delivered")
            assert client.get(task.uid).callbacks == {"pending": 0, "delivered": 1, "dead": 0}


# --------------------------------------------------------------------------- the region


def region_server(script: tuple[Answer | int, ...] = (), then: Answer | int = 200) -> RegionServer:
    return RegionServer(lambda token: token == "t0ken", script, then=then)


def region_table(region: RegionServer, home: Path) -> str:
    token = home / "token"
    token.write_text("t0ken\n")
    token.chmod(0o600)
    return f'[region]\nservice_url = "{region.service_url}"\ntoken_file = "{token}"\n'


DISK_READY = ("PUT", "/disks/d1", {"disk": {"status": "ready"}})
TASK_DONE: tuple[str, str, dict[str, str]] = ("POST", "/tasks/rt-1", {})


@pytest.fixture
def clone() -> Callable[[Client], str]:
    return lambda client: client.register("d1", "clone_snapshot", "sim", region_task_id="rt-1").uid


def test_f4_region_is_told_in_order_when_its_first_call_fails_at_first(short_path: Path, clone: Callable[[Client], str]) -> None:
    with region_server((500, 503)) as region:
        with Daemon(short_path, SIM + PATIENT + region_table(region, short_path)) as daemon, daemon.client() as client:
            uid = clone(client)
            region.wait(4)
            eventually("all is told", lambda: client.get(uid).callbacks["delivered"] == 2)
        assert region.calls == [DISK_READY, DISK_READY, DISK_READY, TASK_DONE]


def test_f4_token_is_read_again_once_when_the_region_refuses_it(short_path: Path, clone: Callable[[Client], str]) -> None:
    """The token file is renewed by somebody else at the moment of the refusal."""
    token = short_path / "token"

    def valid(given: str) -> bool:
        if given != "t0ken":
            token.write_text("t0ken\n")
        return given == "t0ken"

    with RegionServer(valid) as region:
        table = region_table(region, short_path)
        token.write_text("expired\n")
        with Daemon(short_path, SIM + table) as daemon, daemon.client() as client:
            uid = clone(client)
            region.wait(3)
            eventually("all is told", lambda: client.get(uid).callbacks["delivered"] == 2)
            assert [callback.attempts for callback in client.callbacks(uid)] == [1, 1]
        assert [request.headers["x-auth-token"] for request in region.refused] == ["expired"]
        assert region.calls == [DISK_READY, TASK_DONE]


@pytest.mark.parametrize("accepted", [0, 1])
@pytest.mark.parametrize("end", [Daemon.stop, Daemon.kill], ids=["stopped", "killed"])
def test_f4_order_is_kept_when_the_daemon_restarts_between_two_calls(
    accepted: int, end: Callable[[Daemon], object], short_path: Path, clone: Callable[[Client], str]
) -> None:
    """`accepted`: how many of the two calls the region had taken before it began to fail."""
    with region_server((200,) * accepted, then=503) as region:
        config = SIM + PATIENT + region_table(region, short_path)
        with Daemon(short_path, config) as daemon:
            with daemon.client() as client:
                uid = clone(client)
                region.wait(accepted + 1)
            end(daemon)
            region.answer_with(*[200] * 20)
            before = len(region.calls)
            daemon.start()
            with daemon.client() as client:
                eventually("all is told", lambda: client.get(uid).callbacks["delivered"] == 2)
            assert daemon.stop() == 0
        after = region.calls[before:]
        assert after == [DISK_READY, TASK_DONE][accepted:]
        assert set(map(str, region.calls[accepted:before])) <= {str([DISK_READY, TASK_DONE][accepted])}


def test_a_running_daemon_gives_its_metrics(short_path: Path) -> None:
    with Receiver() as receiver, Daemon(short_path, PATIENT + SIM) as daemon, daemon.client() as client:
        client.wait(client.register("disk", "backup", "sim", callback=receiver.url).uid, timeout=20)
        receiver.wait(1)
        found = dict(line.rpartition(" ")[::2] for line in client.metrics().splitlines() if not line.startswith("#"))

    def number(name: str) -> float:
        return float(found[f"task_daemon_{name}"])

    assert number('tasks_ended_total{action="backup",state="succeeded",zone="sim"}') == 1
    assert number("store_commit_seconds_count") >= 3
    assert number("store_writes_total") >= number("store_commit_seconds_count")
    assert number("store_bytes") > 10_000
    assert number("workers") == 4
    assert 0 < number("detection_seconds_sum") < 60
