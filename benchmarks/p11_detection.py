"""P11: a job of a real QEMU concludes: how long until the end is on disk and its callback has come.

The zone is polled once an hour, so nothing but QEMU's events can tell. Jobs stop before their conclusion (`pending`) until they
are told to conclude; time counts from just before that is said, so it contains QEMU's own part.
"""

import time
from collections.abc import Callable
from typing import Any

from benchmarks.harness.daemon import Connection, Daemon, config
from benchmarks.harness.process import WITHIN
from benchmarks.harness.receiver import Receiver
from benchmarks.harness.row import Bench, Figure, Row, at_most, main
from tests.live.storage_bench import Storage

JOBS = 60  # of each round
INTERVAL = 3600.0  # seconds between two polls

CALM = 0.1  # seconds without any poll before a job concludes: longer than the daemon keeps two polls of a zone apart

ROW = Row(
    "P11",
    "a real QEMU job concludes, is recorded and its callback is received; polled once an hour",
    [
        Figure("p50", "median", "ms", at_most(10)),
        Figure("p99", "99th percentile", "ms", at_most(100)),
        Figure("max", "slowest", "ms"),
    ],
    rounds=3,
    note="a job that ends less than 50 ms after another poll of its zone waits for the rest of them",
)


def measure(bench: Bench) -> None:
    storage = Storage(bench.home("q"))
    zone = f'\n[zones.vm1]\nbackend = "storage"\nqmp = "{storage.qmp}"\nroots = ["{storage.images}"]\n'
    try:
        storage.open("src", storage.image("src.qcow2", mebibytes=1, data=1))
        storage.open("dst", storage.image("dst.qcow2", mebibytes=1, data=0))
        with Receiver(bench.home("r")) as receiver, Daemon(bench.home("d"), config(zone, poll_interval=INTERVAL)) as daemon:
            with Connection(daemon.socket) as connection:
                for turn in bench.rounds():
                    count = bench.count(JOBS)
                    taken = sorted(one(connection, storage, receiver, f"job-{turn}-{n}") for n in range(count))
                    bench.note(p50=taken[count // 2], p99=taken[int(0.99 * (count - 1))], max=taken[-1])
            daemon.stop()
    finally:
        storage.end()


def one(connection: Connection, storage: Storage, receiver: Receiver, job: str) -> float:
    """Milliseconds from the word to conclude to the callback."""
    receiver.forget()
    storage.execute(
        "blockdev-backup", job_id=job, device="src", target="dst", sync="full", auto_dismiss=False, auto_finalize=False
    )
    until(f"{job} is pending", lambda: any(j["id"] == job and j["status"] == "pending" for j in storage.execute("query-jobs")))
    body: dict[str, Any] = {"id": job, "action": "backup", "zone": "vm1", "job": job, "callback": {"url": receiver.url}}
    uid = connection.ask("POST", "/v1/tasks", body)["uid"]
    until(f"{job} was seen", lambda: connection.ask("GET", f"/v1/tasks/{uid}")["state"] == "running")
    time.sleep(CALM)
    began = time.monotonic()
    storage.execute("job-finalize", id=job)
    until(f"the end of {job} was told", lambda: receiver.count() > 0)
    storage.execute("job-dismiss", id=job)
    return (receiver.arrivals().times[0] - began) * 1e3


def until(what: str, holds: Callable[[], bool]) -> None:
    end = time.monotonic() + WITHIN
    while not holds():
        if time.monotonic() > end:
            raise SystemExit(f"cannot go on: not within {WITHIN:g} s: {what}")
        time.sleep(0.01)


if __name__ == "__main__":
    main(ROW, measure)
