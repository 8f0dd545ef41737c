"""The promise of the whole: SIGKILL at any moment, and nothing registered is forgotten and no ending untold."""

import json
import os
import random
import threading
from collections import defaultdict
from pathlib import Path

import pytest

from task_client import Client
from task_client.errors import ClientError
from tests.daemons import Daemon
from tests.receivers import Answer, Receiver, Request
from tests.waiting import eventually

TASKS = 1000
KILLS = int(os.environ.get("TASK_DAEMON_KILLS", "50"))
SEED = int(os.environ.get("TASK_DAEMON_SEED", "20261121"))
WRITERS = 4

CONFIG = """
[daemon]
poll_interval = 0.2
log_level = "warning"
[zones.sim]
backend = "simulated"
remember = true
scenario = [
    { id = "bad-*", fail_at = 50, message = "No space left on device", finish_after = 1 },
    { id = "*", finish_after = 1 },
]
[callbacks]
schedule = [0, 0.1, 0.2, 0.5, 1, 1, 1, 1, 2, 2, 2, 2, 5, 5, 5, 5, 5]
per_target = 16
"""


class MoodyReceiver(Receiver):
    """Refuses some deliveries, and drops some after having taken them: then the same one must come again."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._random = random.Random(seed)

    def respond(self, request: Request) -> Answer:
        mood = self._random.random()
        return Answer(status=500) if mood < 0.05 else Answer(drop=True) if mood < 0.1 else Answer(status=204)


class Registrants:
    """Registers tasks from several threads while the daemon comes and goes; remembers what was acknowledged."""

    def __init__(self, socket: str, hook: str, count: int) -> None:
        self.acknowledged: dict[str, str] = {}
        self._socket = socket
        self._hook = hook
        self._names = iter([f"{'bad' if n % 10 == 0 else 'good'}-{n}" for n in range(count)])
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(WRITERS)]
        for thread in self._threads:
            thread.start()

    def busy(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def _work(self) -> None:
        with Client(self._socket, timeout=5) as client:
            while True:
                with self._lock:
                    name = next(self._names, None)
                if name is None:
                    return
                self._register(client, name)

    def _register(self, client: Client, name: str) -> None:
        """Until it is acknowledged; always with the same key, so that an answer that got lost makes no second task."""
        params: dict[str, object] | None = {} if int(name.rpartition("-")[2]) % 2 else None
        for _ in range(10_000):
            try:
                task = client.register(name, "backup", "sim", params=params, callback=self._hook, idempotency_key=name)
            except ClientError:
                threading.Event().wait(0.01)
                continue
            with self._lock:
                self.acknowledged[name] = task.uid
            return
        raise AssertionError(f"{name} was never acknowledged")


@pytest.mark.crash
@pytest.mark.timeout(600)
def test_f1_f2_i1_i2_i4_nothing_is_lost_doubled_or_untold_over_kills_at_random_moments(short_path: Path) -> None:
    moments = random.Random(SEED)
    with MoodyReceiver(SEED) as receiver, Daemon(short_path, CONFIG) as daemon:
        registrants = Registrants(daemon.socket, receiver.url, TASKS)
        pause = threading.Event()
        for _ in range(KILLS):
            pause.wait(moments.uniform(0.0, 0.5))
            daemon.kill()
            daemon.start()
        eventually("all tasks are acknowledged", lambda: not registrants.busy(), 120)
        with daemon.client() as client:
            eventually("all tasks are done", lambda: not list(client.list(done=False, page_size=1)), 120)
            eventually("all callbacks are closed", lambda: not client.callbacks(state="pending"), 120)
            tasks = {task.uid: task for task in client.list(page_size=500)}
            dead = client.callbacks(state="dead")
        assert daemon.stop() == 0

    told = _told(receiver.requests)
    started = (short_path / "w" / "zones" / "sim" / "starts.log").read_text().split()
    assert len(registrants.acknowledged) == TASKS
    assert len(tasks) == TASKS, "phantoms or losses"
    assert [name for name, uid in registrants.acknowledged.items() if uid not in tasks] == []
    assert {uid for uid, task in tasks.items() if not task.done} == set()
    assert {task.state for task in tasks.values() if task.id.startswith("good")} == {"succeeded"}
    assert {task.state for task in tasks.values() if task.id.startswith("bad")} == {"failed"}
    assert dead == []
    assert set(told) == set(tasks), "ends without their callback"
    assert {uid: ids for uid, ids in told.items() if len(ids) != 1} == {}, "an end told under two webhook-ids"
    assert len(started) == len(set(started)), "work started twice"


def _told(requests: list[Request]) -> dict[str, set[str]]:
    """webhook-ids by task uid."""
    told: dict[str, set[str]] = defaultdict(set)
    for request in requests:
        told[json.loads(request.body)["data"]["task"]["uid"]].add(request.headers["webhook-id"])
    return told
