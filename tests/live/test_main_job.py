"""The main job: a whole daemon, real storage, and somebody who waits to be told."""

import json
import signal
import socket
import threading
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from task_client import Client
from task_client.types import Task
from tests.daemons import Daemon
from tests.live.storage_bench import MIB, Storage, same
from tests.receivers import Receiver
from tests.waiting import eventually

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("qemu")]

INTERVAL = 0.5  # seconds between two polls of a zone
STOPPED_WITHIN = 5.0  # seconds: one is promised on an idle machine; whoever waits for a poll or a receiver takes ten


class Bench:
    """Two storages `a` and `b`, each a zone of one daemon, and a receiver of its callbacks."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.storages: dict[str, Storage] = {}
        self.receiver = Receiver()

    def add(self, zone: str) -> Storage:
        directory = self.home / zone
        directory.mkdir()
        self.storages[zone] = Storage(directory)
        return self.storages[zone]

    def daemon(self, poll_interval: float = INTERVAL, poll_timeout: float = 1.0) -> Daemon:
        lines = ["[zones.local]", "enabled = false"]
        for zone, storage in self.storages.items():
            lines += [f"[zones.{zone}]", 'backend = "storage"', f'qmp = "{storage.qmp}"', f'roots = ["{storage.images}"]']
            lines += [f"poll_interval = {poll_interval}", f"poll_timeout = {poll_timeout}"]
        return Daemon(self.home, "\n".join(lines))

    def told(self, count: int) -> dict[str, Any]:
        """What the receiver was told, by task uid; each end once."""
        bodies = [request.json() for request in self.receiver.wait(count)]
        assert len(bodies) == len({body["data"]["task"]["uid"] for body in bodies})
        return {body["data"]["task"]["uid"]: body for body in bodies}

    def end(self) -> None:
        self.receiver.close()
        for storage in self.storages.values():
            storage.end()


@pytest.fixture
def bench(short_path: Path, qemu: None) -> Iterator[Bench]:
    made = Bench(short_path)
    yield made
    made.end()


@pytest.fixture
def storage(bench: Bench) -> Storage:
    return bench.add("a")


def start_backup(storage: Storage, job: str, speed: int) -> None:
    """What a registrant does before it registers."""
    for name in ("src", "dst"):
        storage.open(name, storage.image(f"{name}.qcow2", data=4 if name == "src" else 0))
    storage.execute("blockdev-backup", job_id=job, device="src", target="dst", sync="full", auto_dismiss=False, speed=speed)


def run_clone(client: Client, bench: Bench, storage: Storage, speed: int) -> tuple[Task, Path, Path]:
    source, target = storage.image("a.qcow2", data=8), storage.images / "new.qcow2"
    params = {"source": str(source), "target": str(target), "speed": speed}
    return client.register("d1", "clone", "a", params=params, callback=bench.receiver.url), source, target


def zone_of(client: Client, name: str) -> Any:
    return next(zone for zone in client.zones() if zone["zone"] == name)


def test_f6_i6_hung_storage_is_seen_and_harms_no_other_zone_and_its_task_succeeds_when_it_goes_on(bench: Bench) -> None:
    for zone, speed in (("a", 8 * MIB), ("b", 4 * MIB)):
        start_backup(bench.add(zone), f"backup-{zone}", speed)
    with bench.daemon() as daemon, daemon.client() as client:
        uids = {zone: client.register(zone, "backup", zone, callback=bench.receiver.url).uid for zone in ("a", "b")}
        eventually("both are seen", lambda: all(client.get(uid).state == "running" for uid in uids.values()))
        bench.storages["b"].stop()
        eventually("the hung one is visible", lambda: zone_of(client, "b")["state"] in ("unreachable", "hung"), 4 * INTERVAL + 1)
        assert "the storage service hangs" in zone_of(client, "b")["last_error"]
        assert "backend_unreachable" in client.get(uids["b"]).flags
        assert bench.told(1)[uids["a"]]["type"] == "task.succeeded"
        assert zone_of(client, "a")["state"] == "ok"
        assert client.get(uids["b"]).state == "running"
        bench.storages["b"].go_on()
        assert bench.told(2)[uids["b"]]["type"] == "task.succeeded"
        eventually("the zone is well again", lambda: zone_of(client, "b")["state"] == "ok")
        assert daemon.stop() == 0
    for storage in bench.storages.values():
        storage.execute("job-dismiss", id=storage.jobs()[0])
        storage.execute("blockdev-del", node_name="dst")
        assert same(storage.images / "src.qcow2", storage.images / "dst.qcow2")


def test_i11_daemon_stops_in_time_when_a_storage_hangs(bench: Bench, storage: Storage) -> None:
    start_backup(storage, "backup-d1", speed=MIB)
    with bench.daemon(poll_timeout=30.0) as daemon, daemon.client() as client:
        uid = client.register("d1", "backup", "a").uid
        eventually("the job is seen", lambda: client.get(uid).state == "running")
        storage.stop()

        def asked() -> bool:
            zone = zone_of(client, "a")
            return bool(zone["last_poll_at"] > zone["last_answer_at"])

        eventually("a question to the hung storage is out", asked)
        daemon.signal(signal.SIGTERM)
        assert daemon.wait(STOPPED_WITHIN) == 0
        storage.go_on()
        daemon.start()
        assert client.get(uid).state == "running"
        assert storage.jobs() == ["backup-d1"]


class JobHistory:
    """Listens on the second monitor of a storage and remembers which jobs were created."""

    def __init__(self, storage: Storage) -> None:
        self.created: dict[str, int] = defaultdict(int)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(storage.directory / "m1.sock"))
        self._socket.settimeout(60)
        self._lines = self._socket.makefile("rb")
        assert b"QMP" in self._lines.readline()
        self._socket.sendall(b'{"execute": "qmp_capabilities"}\n')
        assert json.loads(self._lines.readline()) == {"return": {}}
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        for line in self._lines:
            event = json.loads(line)
            if event.get("event") == "JOB_STATUS_CHANGE" and event["data"]["status"] == "created":
                self.created[event["data"]["id"]] += 1

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._lines.close()
        self._socket.close()


def test_i2_i9_clone_is_adopted_and_never_started_twice_when_the_daemon_is_killed(bench: Bench, storage: Storage) -> None:
    history = JobHistory(storage)
    with bench.daemon() as daemon:
        with daemon.client() as client:
            task, source, target = run_clone(client, bench, storage, speed=6 * MIB)
        daemon.kill()  # while it starts the job, or just before or after
        daemon.start()
        with daemon.client() as client:
            eventually("it is in the middle", lambda: (client.get(task.uid).progress.percent or 0) > 10)
        daemon.kill()
        daemon.start()
        with daemon.client() as client:
            body = bench.told(1)[task.uid]
            assert body["type"] == "task.succeeded", body
            assert [event.type for event in client.events(task.uid)].count("task.running") == 1
            history.close()
            eventually("the job is dismissed", lambda: not storage.jobs())
            eventually("its nodes are closed", lambda: not storage.nodes())
        assert daemon.stop() == 0
    jobs = {name: count for name, count in history.created.items() if name == f"task-{task.uid}"}
    assert jobs == {f"task-{task.uid}": 1}
    assert same(source, target)
    assert storage.files() == {"a.qcow2", "new.qcow2"}


def test_end_is_told_long_before_the_next_poll_when_the_storage_announces_it(bench: Bench, storage: Storage) -> None:
    start_backup(storage, "backup-d1", speed=8 * MIB)
    with bench.daemon(poll_interval=60) as daemon, daemon.client() as client:
        task = client.register("d1", "backup", "a", callback=bench.receiver.url)
        eventually("the job is seen", lambda: client.get(task.uid).state == "running")
        assert bench.told(1)[task.uid]["type"] == "task.succeeded"  # within 20 s


def test_f12_registrant_is_told_lost_when_the_storage_was_killed(bench: Bench, storage: Storage) -> None:
    with bench.daemon() as daemon, daemon.client() as client:
        run, _, target = run_clone(client, bench, storage, speed=MIB)
        start_backup(storage, "backup-d2", speed=MIB)
        tracked = client.register("d2", "backup", "a", callback=bench.receiver.url)
        eventually("both are seen", lambda: {client.get(task.uid).state for task in (run, tracked)} == {"running"})
        storage.kill()
        eventually("the zone is unreachable", lambda: zone_of(client, "a")["state"] == "unreachable")
        assert {client.get(task.uid).state for task in (run, tracked)} == {"running"}, "silence is no evidence"
        storage.restart()
        told = bench.told(2)
        for task in (run, tracked):
            assert told[task.uid]["type"] == "task.lost"
            assert told[task.uid]["data"]["task"]["error"]["kind"] == "lost"
        assert target.exists(), "how lost work ended is for a person to decide"
        assert client.get(run.uid).state == "lost"


def test_tracked_job_is_found_under_each_conventional_name(bench: Bench, storage: Storage) -> None:
    options = {"driver": "file", "size": 1}
    for name in ("backup-d1", "task-d2", "d3", "own-name"):
        storage.execute("blockdev-create", job_id=name, options={**options, "filename": str(storage.images / name)})
    storage.execute("blockdev-create", job_id="backup-d4", options={**options, "filename": "/nowhere/x"})
    with bench.daemon() as daemon, daemon.client() as client:
        hook = bench.receiver.url
        good = [client.register(name, "backup", "a", callback=hook) for name in ("d1", "d2", "d3")]
        good.append(client.register("d5", "backup", "a", callback=hook, job="own-name"))
        bad = client.register("d4", "backup", "a", callback=hook)
        told = bench.told(5)
        assert [told[task.uid]["type"] for task in good] == ["task.succeeded"] * 4
        error = told[bad.uid]["data"]["task"]["error"]
        assert (error["kind"], error["message"]) == ("backend", "Could not create '/nowhere/x': No such file or directory")
        assert len(storage.jobs()) == 5, "jobs of others are not dismissed"


def test_registrant_is_told_why_when_there_is_no_space_left(bench: Bench, storage: Storage) -> None:
    backup, volume = storage.image("b.qcow2", data=8), storage.image("v.qcow2", data=0)
    fault = {"event": "none", "iotype": "write", "errno": 28, "sector": 2 * MIB // 512, "once": False}
    below = {"driver": "blkdebug", "image": {"driver": "file", "filename": str(volume)}, "inject-error": [fault]}
    storage.execute("blockdev-add", driver="qcow2", node_name="vol", file=below)
    with bench.daemon() as daemon, daemon.client() as client:
        params = {"source": str(backup), "node": "vol"}
        task = client.register("d1", "restore_backup", "a", params=params, callback=bench.receiver.url)
        body = bench.told(1)[task.uid]
        assert body["type"] == "task.failed"
        error = body["data"]["task"]["error"]
        assert (error["kind"], error["message"]) == ("backend", "No space left on device")
        eventually("what was opened is closed", lambda: storage.nodes() == {"vol"})
        assert storage.jobs() == []
