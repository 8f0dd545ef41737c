"""The lean client: `load.c` as a function."""

import itertools
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, Unpack

from benchmarks.harness.native import program

LONGEST = 120.0  # seconds a run may take beyond what it was asked for
_runs = itertools.count()


@dataclass(frozen=True)
class Load:
    """What one run of the client found. Latencies are in milliseconds, one for each request."""

    requests: int
    tasks: int
    seconds: float
    rate: float  # tasks a second; with `get`, requests a second
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    bytes: int  # of the answers
    cpu_seconds: float  # of the client
    wrong: int
    error: str


class Options(TypedDict, total=False):
    """What `load.c` does with them is said in its head; without any: registrations over one connection for 2 seconds."""

    connections: int
    seconds: float
    count: int  # of requests, instead of seconds
    batch: int
    task: str  # JSON of one registration, with `@` where its id belongs
    get: str  # a path that is asked for, instead of registering
    path: str
    pace: float  # requests a second
    status: int  # of a right answer


def load(socket: str | Path, *, check: bool = True, **options: Unpack[Options]) -> Load:
    """Keep a server busy from a process of its own. Every call uses new task ids.

    Ends the benchmark when an answer was not the expected one, unless `check` is false.
    """
    return finish(start(socket, **options), options.get("seconds", 2.0) + LONGEST, check=check)


def start(socket: str | Path, **options: Unpack[Options]) -> "subprocess.Popen[str]":
    """As `load`, but only begun: `finish` it."""
    given: dict[str, object] = {"prefix": f"r{next(_runs)}", **options}
    if path := given.pop("get", None):
        given = {"status": 200, **given, "path": path}
    elif options.get("batch", 1) > 1:
        given.setdefault("path", "/v1/tasks:batch")
    command = [str(program("load")), str(socket), *(f"--{name}={value}" for name, value in given.items())]
    if path:
        command.append("--get")
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)


def finish(begun: "subprocess.Popen[str]", within: float = LONGEST, *, check: bool = True) -> Load:
    try:
        said, _ = begun.communicate(timeout=within)
    except BaseException:
        begun.kill()
        begun.wait()
        raise
    if not said:
        raise SystemExit(f"cannot measure: the client ended with {begun.returncode}")
    found = Load(**json.loads(said))
    if check and found.wrong:
        raise SystemExit(
            f"cannot trust the figures: {found.wrong} of {found.requests} answers were wrong, the first: {found.error}"
        )
    return found
