"""What 500 idle waiters and 500 event readers cost those who register.

    .venv/bin/python benchmarks/idle_waiters.py

Lockstep registrations over one kept connection, in turns with and without 1,000 idle long-polls on the same daemon; medians
over the turns, because these machines are noisy. Prints the two latencies and their ratio.
"""

import json
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from first_figures import Daemon, draft, machine, request

TURNS = 7
REGISTRATIONS = 400  # of each turn
WAITERS = 500
WAIT = 60  # seconds each long-poll would wait


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="tdb-") as home, Daemon(Path(home, "w")) as daemon:
        task = json.loads(daemon.ask(request("/v1/tasks", json.dumps(draft("watched")).encode())).partition(b"\r\n\r\n")[2])
        alone, beside = [], []
        for turn in range(TURNS):
            alone.append(latency(daemon.socket, f"a{turn}"))
            waiters = [asking(daemon.socket, f"/v1/tasks/{task['uid']}?wait={WAIT}") for _ in range(WAITERS)]
            cursor = 10**9  # above every event: they wait
            waiters += [asking(daemon.socket, f"/v1/events?after={cursor}&wait={WAIT}") for _ in range(WAITERS)]
            beside.append(latency(daemon.socket, f"b{turn}"))
            for waiter in waiters:
                waiter.close()
        about = machine(home)
        daemon.stop()
    print(f"{about['cores']} cores, load {about['load'][0]}, fsync {about['fsync_seconds'] * 1e3:.2f} ms")
    for name, place in (("p50", 0), ("p99", 1)):
        without, with_them = (statistics.median(turn[place] for turn in turns) for turns in (alone, beside))
        ratio = with_them / without
        print(f"{name}: {without * 1e3:.2f} ms alone, {with_them * 1e3:.2f} ms beside {2 * WAITERS} waiters: x {ratio:.2f}")


def asking(path: str, target: str) -> socket.socket:
    """A connection on which a question waits for its answer."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    connection.sendall(f"GET {target} HTTP/1.1\r\nHost: d\r\n\r\n".encode())
    return connection


def latency(path: str, name: str) -> tuple[float, float]:
    """Median and 99th percentile of one registration, in seconds."""
    taken = []
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        for n in range(REGISTRATIONS):
            message = request("/v1/tasks", json.dumps(draft(f"{name}-{n}")).encode())
            began = time.perf_counter()
            connection.sendall(message)
            answer = connection.recv(65536)
            taken.append(time.perf_counter() - began)
            if b" 202 " not in answer[:20]:
                raise SystemExit(f"cannot register: {answer[:300]!r}")
    taken.sort()
    return taken[len(taken) // 2], taken[int(len(taken) * 0.99)]


if __name__ == "__main__":
    main()
