"""Something that watches operations and calls back when they end: a peer with its store and its workers, or this daemon."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.harness.process import WITHIN, cpu_of_family, memory_of_family
from benchmarks.peers.operation import settings

ROOT = Path(__file__).parent.parent.parent
PEERS_PYTHON = ROOT / ".bench-venv" / "bin" / "python"
NEEDS_REDIS = ("rq", "celery", "dramatiq")
NAMES = {"task_daemon": "task-daemon", "huey": "Huey", "rq": "RQ", "celery": "Celery", "dramatiq": "Dramatiq"}
PEERS = [name for name in NAMES if name != "task_daemon"]
STORES = {"task_daemon": "SQLite", "huey": "SQLite", "rq": "Redis, AOF always", "celery": "Redis, AOF always"}
STORES["dramatiq"] = STORES["celery"]


def redis_program() -> str | None:
    return shutil.which("redis-server") or shutil.which("redis-check-rdb")  # one program; its name says what it is to do


@dataclass
class System:
    """One peer, for one measurement, in a scratch directory of its own. What is started here ends with the `with` block."""

    name: str
    home: Path
    interval: float = 10.0
    lasts: float = 0.002
    tell: str = ""
    processes: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    @property
    def env(self) -> dict[str, str]:
        own = settings(self.home, self.interval, self.lasts, self.tell)
        return {**os.environ, **own, "PYTHONPATH": f"{ROOT}:{ROOT / 'client'}", "PYTHONWARNINGS": "ignore", "NO_COLOR": "1"}

    @property
    def python(self) -> str:
        return str(PEERS_PYTHON) if self.name in PEERS else sys.executable

    def start_store(self) -> None:
        """Redis, for those who need it: on a Unix socket, every command flushed to disk before its answer."""
        if self.name not in NEEDS_REDIS:
            return
        program = redis_program()
        assert program is not None
        path = self.home / "redis"
        options = {
            "port": "0",
            "unixsocket": str(path),
            "dir": str(self.home),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "always",
            "auto-aof-rewrite-percentage": "0",
        }
        command = ["redis-server", *(part for name, value in options.items() for part in (f"--{name}", value))]
        self._spawn(command, program)
        self._await(path)

    def start_workers(self) -> None:
        for options in _workers(self.name, self.python, self.env):
            self._spawn([self.python, *options])

    def cpu(self) -> float:
        """Seconds, of store and workers."""
        return sum(cpu_of_family(process.pid) for process in self.processes)

    def memory(self) -> tuple[int, int]:
        """RSS and PSS of store and workers, bytes."""
        found = [memory_of_family(process.pid) for process in self.processes]
        return sum(rss for rss, _ in found), sum(pss for _, pss in found)

    def client(self, first: int, at: float, amount: float, *more: str) -> "subprocess.Popen[str]":
        command = [self.python, "-m", "benchmarks.peers.client", self.name, str(first), str(at), str(amount), *more]
        return subprocess.Popen(command, cwd=ROOT, env=self.env, stdout=subprocess.PIPE, text=True)

    def stop(self) -> None:
        for process in reversed(self.processes):
            _end(process)
        self.processes.clear()

    def _spawn(self, command: Sequence[str], program: str | None = None) -> None:
        with (self.home / "log").open("ab") as log:
            process = subprocess.Popen(
                command, executable=program, cwd=ROOT, env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        self.processes.append(process)

    def _await(self, path: Path) -> None:
        end = time.monotonic() + WITHIN
        while not path.exists():
            if time.monotonic() > end or self.processes[-1].poll() is not None:
                raise SystemExit(f"cannot start the store of {self.name}: {self.said()}")
            time.sleep(0.01)

    def said(self) -> str:
        return (self.home / "log").read_text(errors="replace")[-2000:]


@contextmanager
def system(name: str, home: Path, **members: Any) -> Iterator[System]:
    home.mkdir()
    made = System(name, home, **members)
    try:
        made.start_store()
        yield made
    finally:
        made.stop()
        shutil.rmtree(home, ignore_errors=True)


def finished(clients: Sequence["subprocess.Popen[str]"], within: float) -> list[Any]:
    """What they printed; all are ended when one of them does not end well."""
    end = time.monotonic() + within
    try:
        found = []
        for client in clients:
            said, _ = client.communicate(timeout=max(0.1, end - time.monotonic()))
            if client.returncode != 0:
                raise SystemExit(f"cannot measure: a client ended with {client.returncode}")
            found.append(json.loads(said))
        return found
    finally:
        for client in clients:
            client.kill()
            client.wait()


def versions() -> dict[str, str]:
    """Of the peers and of Redis."""
    code = "import importlib.metadata as m, json; print(json.dumps({n: m.version(n) for n in %r}))"
    found: dict[str, str] = json.loads(subprocess.run([PEERS_PYTHON, "-c", code % PEERS], capture_output=True, check=True).stdout)
    if program := redis_program():
        said = subprocess.run(
            ["redis-server", "--version"], executable=program, capture_output=True, text=True, check=True
        ).stdout
        found["redis"] = said.partition("v=")[2].split()[0]
    return found


def _workers(name: str, python: str, env: Mapping[str, str]) -> list[list[str]]:
    code = f"import json, benchmarks.peers.on_{name} as peer; print(json.dumps(peer.WORKERS))"
    said = subprocess.run([python, "-c", code], cwd=ROOT, env=env, capture_output=True, check=True).stdout
    found: list[list[str]] = json.loads(said)
    return found


def _end(process: "subprocess.Popen[bytes]") -> None:
    """It and its family, which has a session of its own."""
    for number, patience in ((signal.SIGTERM, 3.0), (signal.SIGKILL, WITHIN)):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            continue
    process.wait(WITHIN)
