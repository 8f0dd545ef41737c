"""First figures: how fast a daemon starts, takes registrations and stops, and what a live task costs.

    make bench                      # or: .venv/bin/python benchmarks/first_figures.py [DIRECTORY]

Prints a table and writes `benchmarks/results/first_figures.json`. Everything is measured from outside, over the Unix
socket, against a daemon in a process of its own; registrations are durable (fsync) before they count. DIRECTORY is where
the workspaces go: its disk is what is measured, so its fsync is in the table too. Takes about a minute.

The work is simulated and never ends, so that live tasks stay live. Each is polled like real ones (first at once, then every
POLL_INTERVAL seconds), and that goes on while registrations are counted.
"""

import asyncio
import json
import multiprocessing
import os
import platform
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

RUNS = 5
SECONDS = 2.0  # of each run
LIVE = 10_000
BATCH = 100
WITHIN = 20.0  # seconds any single step may take
POLL_INTERVAL = 10.0
RESULTS = Path(__file__).parent / "results" / "first_figures.json"
CONFIG = f"""
[daemon]
poll_interval = {POLL_INTERVAL}
log_level = "warning"
[limits]
live_tasks_per_uid = 1000000
connections = 4096
connections_per_uid = 4096
[zones.sim]
backend = "simulated"
scenario = [{{ id = "*", finish_after = 1000000 }}]
"""


def main() -> None:
    began = time.perf_counter()
    directory = sys.argv[1] if len(sys.argv) > 1 else tempfile.gettempdir()
    with tempfile.TemporaryDirectory(prefix="tdb-", dir=directory) as home:
        found: dict[str, Any] = {
            "machine": machine(home),
            "empty": starts(Path(home, "e")),
            "registering": registering(Path(home, "r")),
        }
        live = Path(home, "l")
        fill(live)
        found["live"] = starts(live, LIVE)
    empty, full = found["empty"]["rss_bytes"], found["live"]["rss_bytes"]
    found["bytes_per_live_task"] = round((full - empty) / LIVE)
    found["took_seconds"] = round(time.perf_counter() - began, 1)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    show(found)


# --------------------------------------------------------------------------- what is measured


def starts(home: Path, live: int = 0) -> dict[str, float]:
    """Medians over some starts and stops of a daemon with `live` tasks in its store."""
    ready, loaded, memory, stopped = [], [], [], []
    for _ in range(RUNS):
        with Daemon(home) as daemon:
            ready.append(daemon.ready_after)
            daemon.until(lambda status: status["live"] == live and not status["loading"])
            loaded.append(time.perf_counter() - daemon.spawned)
            memory.append(daemon.rss())
            stopped.append(daemon.stop())
    return {
        "ready_seconds": statistics.median(ready),
        "all_taken_in_seconds": statistics.median(loaded),
        "rss_bytes": statistics.median(memory),
        "sigterm_to_exit_seconds": statistics.median(stopped),
        "sigterm_to_exit_seconds_worst": max(stopped),
    }


def registering(home: Path) -> dict[str, Any]:
    """Durable registrations a second, from a client process of its own over kept connections; a new daemon for each way."""
    home.mkdir()
    found: dict[str, Any] = {}
    with multiprocessing.get_context("spawn").Pool(1) as client:
        for name, connections, batch in (("1_connection", 1, 1), ("8_connections", 8, 1), ("1_connection_batches", 1, BATCH)):
            with Daemon(home / name) as daemon:
                runs = [client.apply(client_run, (daemon.socket, connections, batch, f"{n}")) for n in range(RUNS)]
                daemon.stop()
            found[name] = {"median_per_second": round(statistics.median(runs)), "runs": [round(run) for run in runs]}
    return found


def fill(home: Path) -> None:
    """Leave a stopped daemon's store with LIVE live tasks."""
    with Daemon(home) as daemon:
        for start in range(0, LIVE, 1000):
            body = json.dumps({"tasks": [draft(f"t-{n}") for n in range(start, start + 1000)]}).encode()
            answer = daemon.ask(request("/v1/tasks:batch", body))
            if b" 202 " not in answer[:20]:
                raise SystemExit(f"cannot fill the store: the daemon answered {answer[:300]!r}")
        daemon.stop()


def machine(home: str) -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "load": [round(value, 2) for value in os.getloadavg()],
        "fsync_seconds": fsync_seconds(Path(home, "fsync")),
    }


def fsync_seconds(path: Path) -> float:
    """Median time of 4 KiB appended and synced."""
    taken = []
    with path.open("wb", buffering=0) as file:
        for _ in range(100):
            began = time.perf_counter()
            file.write(b"x" * 4096)
            os.fsync(file.fileno())
            taken.append(time.perf_counter() - began)
    return statistics.median(taken)


# --------------------------------------------------------------------------- a daemon


class Daemon:
    """One daemon, started at once and waited for. Time is taken from just before it is spawned."""

    def __init__(self, home: Path) -> None:
        home.mkdir(exist_ok=True)
        config = home / "c.toml"
        config.write_text(CONFIG)
        self.socket = str(home / "s")
        command = [sys.executable, "-m", "task_daemon", f"--workspace={home / 'w'}", f"--unix-socket={self.socket}"]
        self.spawned = time.perf_counter()
        self._log = home / "log"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, f"--config-file={config}"], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            self._await()
        except BaseException:
            self._process.kill()
            raise
        self.ready_after = time.perf_counter() - self.spawned

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()  # nothing happens if it has ended
        self._process.wait(WITHIN)

    def _await(self) -> None:
        """Until `/readyz` answers 200."""
        while time.perf_counter() - self.spawned < WITHIN:
            try:
                if b" 200 " in self.ask(request("/readyz"))[:20]:
                    return
            except OSError:
                if self._process.poll() is not None:
                    text = self._log.read_text()[-2000:]
                    raise SystemExit(f"cannot start the daemon: it ended with {self._process.returncode}: {text}") from None
            time.sleep(0.002)
        raise SystemExit(f"cannot start the daemon: not ready within {WITHIN:g} s")

    def ask(self, what: bytes) -> bytes:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(WITHIN)
            connection.connect(self.socket)
            connection.sendall(what.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
            answer = b""
            while piece := connection.recv(1 << 20):
                answer += piece
        return answer

    def until(self, holds: Callable[[Any], bool]) -> None:
        """Until `holds` of the `status` of `/v1/info`."""
        end = time.perf_counter() + WITHIN
        while not holds(json.loads(self.ask(request("/v1/info")).partition(b"\r\n\r\n")[2])["status"]):
            if time.perf_counter() > end:
                raise SystemExit(f"cannot go on: what is in the store was not taken in within {WITHIN:g} s")
            time.sleep(0.005)

    def rss(self) -> int:
        """Bytes."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024

    def stop(self) -> float:
        """Seconds from SIGTERM to the end of the process."""
        began = time.perf_counter()
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(WITHIN)
        if code != 0:
            raise SystemExit(f"cannot trust the figures: the daemon ended with {code}")
        return time.perf_counter() - began


# --------------------------------------------------------------------------- the client, in a process of its own


def client_run(path: str, connections: int, batch: int, run: str) -> float:
    """Registrations a second, over some seconds."""
    return asyncio.run(_run(path, connections, batch, run))


async def _run(path: str, connections: int, batch: int, run: str) -> float:
    began = time.perf_counter()
    done = await asyncio.gather(*(_connection(path, batch, f"{run}-{n}", began + SECONDS) for n in range(connections)))
    return sum(done) / (time.perf_counter() - began)


async def _connection(path: str, batch: int, run: str, end: float) -> int:
    reader, writer = await asyncio.wait_for(asyncio.open_unix_connection(path, limit=1 << 22), WITHIN)
    count = 0
    while time.perf_counter() < end:
        if batch == 1:
            writer.write(request("/v1/tasks", json.dumps(draft(f"{run}-{count}")).encode()))
        else:
            tasks = [draft(f"{run}-{count + n}") for n in range(batch)]
            writer.write(request("/v1/tasks:batch", json.dumps({"tasks": tasks}).encode()))
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), WITHIN)
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        answer = await asyncio.wait_for(reader.readexactly(length), WITHIN)
        if b" 202 " not in head[:20]:
            raise RuntimeError(f"cannot count: the daemon answered {head[:40]!r} {answer[:300]!r}")
        count += batch
    writer.close()
    return count


def draft(name: str) -> dict[str, str]:
    return {"id": name, "action": "simulated", "zone": "sim"}


def request(path: str, body: bytes | None = None) -> bytes:
    if body is None:
        return b"GET %s HTTP/1.1\r\nHost: d\r\n\r\n" % path.encode()
    head = b"POST %s HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % (path.encode(), len(body)) + body


# --------------------------------------------------------------------------- showing


def show(found: dict[str, Any]) -> None:
    facts, empty, live, taken = found["machine"], found["empty"], found["live"], found["registering"]
    print(f"{facts['cores']} cores, Linux {facts['kernel']}, Python {facts['python']}, SQLite {facts['sqlite']}, ", end="")
    print(f"load {facts['load'][0]}, fsync {facts['fsync_seconds'] * 1000:.2f} ms; medians of {RUNS}\n")
    rows = [
        ("start until /readyz, empty", f"{empty['ready_seconds'] * 1000:.0f} ms"),
        (f"start until /readyz, {LIVE} live tasks", f"{live['ready_seconds'] * 1000:.0f} ms"),
        (f"start until all {LIVE} are taken in", f"{live['all_taken_in_seconds'] * 1000:.0f} ms"),
        ("registrations, 1 connection", f"{taken['1_connection']['median_per_second']} /s"),
        ("registrations, 8 connections", f"{taken['8_connections']['median_per_second']} /s"),
        (f"registrations, batches of {BATCH}", f"{taken['1_connection_batches']['median_per_second']} /s"),
        ("memory (RSS), empty", f"{empty['rss_bytes'] / 2**20:.1f} MiB"),
        (f"memory (RSS), {LIVE} live tasks", f"{live['rss_bytes'] / 2**20:.1f} MiB"),
        ("memory for each live task", f"{found['bytes_per_live_task']} bytes"),
        ("SIGTERM to exit, empty", f"{empty['sigterm_to_exit_seconds'] * 1000:.0f} ms"),
        (f"SIGTERM to exit, {LIVE} live tasks", f"{live['sigterm_to_exit_seconds'] * 1000:.0f} ms"),
        ("  the worst of them", f"{live['sigterm_to_exit_seconds_worst'] * 1000:.0f} ms"),
    ]
    for what, figure in rows:
        print(f"{what:<42}{figure:>14}")
    print(f"\ntook {found['took_seconds']} s; written to {RESULTS}")


if __name__ == "__main__":
    main()
