"""P14: what 500 idle waiters, 500 event readers and somebody who lists 500 tasks each second cost those who register.

Lockstep registrations over one kept connection, in turns without and with all of them on the same daemon. Each begins when the
daemon is at rest, or it would be their coming and going that is measured. The interval is longer than all of them: a poll of all
that was registered before would fall into one run or the other, and decide its slowest requests. New tasks are polled as ever.
"""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.harness.daemon import Connection, Daemon, config, draft, request
from benchmarks.harness.load import load
from benchmarks.harness.row import Bench, Figure, Row, at_most, main

WAITERS = 500
WAIT = 120  # seconds each long-poll would wait
FAR = 10**9  # above every event: readers wait
PAGE = 500
INTERVAL = 3600.0  # seconds
LOOK, QUIET = 0.25, 0.02  # seconds, and of processor time in them while it rests

ROW = Row(
    "P14",
    "registrations beside 500 idle waiters, 500 event readers and a page of 500 tasks each second",
    [
        Figure("times", "99th percentile of a registration, compared with nobody else there", "×", at_most(1.2)),
        Figure("alone", "99th percentile with nobody else there", "ms"),
        Figure("beside", "99th percentile beside them", "ms"),
        Figure("median_times", "median of a registration, compared with nobody else there", "×"),
    ],
    rounds=7,
)


def measure(bench: Bench) -> None:
    with Daemon(bench.home("d"), config(poll_interval=INTERVAL)) as daemon:
        daemon.fill(PAGE)
        watched = daemon.ask("POST", "/v1/tasks", draft("watched"))["uid"]
        for _ in bench.rounds():
            at_rest(daemon)
            alone = load(daemon.socket, seconds=bench.seconds(3))
            with crowd(daemon.socket, watched):
                at_rest(daemon)
                beside = load(daemon.socket, seconds=bench.seconds(3))
            bench.note(
                times=beside.p99_ms / alone.p99_ms,
                alone=alone.p99_ms,
                beside=beside.p99_ms,
                median_times=beside.p50_ms / alone.p50_ms,
            )
        daemon.stop()


def at_rest(daemon: Daemon) -> None:
    """Wait until the daemon has nothing to do but to wait."""
    before, now = -QUIET, daemon.cpu()
    while now - before >= QUIET:
        time.sleep(LOOK)
        before, now = now, daemon.cpu()


@contextmanager
def crowd(path: str, watched: str) -> Iterator[None]:
    waiters = [asking(path, f"/v1/tasks/{watched}?wait={WAIT}") for _ in range(WAITERS)]
    waiters += [asking(path, f"/v1/events?after={FAR}&wait={WAIT}") for _ in range(WAITERS)]
    over = threading.Event()
    lister = threading.Thread(target=list_pages, args=(path, over))
    lister.start()
    try:
        yield
    finally:
        over.set()
        lister.join()
        for waiter in waiters:
            waiter.close()


def list_pages(path: str, over: threading.Event) -> None:
    with Connection(path) as connection:
        while not over.wait(1.0):
            connection.ask("GET", f"/v1/tasks?page_size={PAGE}")


def asking(path: str, target: str) -> socket.socket:
    """A connection on which a question waits for its answer."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    connection.sendall(request("GET", target))
    return connection


if __name__ == "__main__":
    main(ROW, measure)
