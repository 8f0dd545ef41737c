"""Registrants in processes of their own, as many and as fast as they can."""

import time
from dataclasses import dataclass

from benchmarks.harness.daemon import Daemon
from benchmarks.peers.client import OWN
from benchmarks.peers.system import System, finished

LEAD = 1.5  # seconds for the first to start, and a little more for each
LEAD_EACH = 0.3


@dataclass(frozen=True)
class Registered:
    """For one registration: `cpu_us` of all processes, store and clients, `own_us` of the clients alone."""

    rate: float  # a second
    p99_ms: float
    max_ms: float
    cpu_us: float
    own_us: float


def registering(system: System, clients: int, seconds: float, daemon: Daemon | None = None) -> Registered:
    """`daemon` is what the clients of this project register with."""
    at = time.monotonic() + LEAD + LEAD_EACH * clients
    begun = [system.client(n * OWN, at, seconds) for n in range(clients)]
    time.sleep(max(0.0, at - 0.05 - time.monotonic()))
    before = _cpu(system, daemon)
    told = finished(begun, seconds + 60)
    own = sum(client["cpu"] for client in told)
    used = _cpu(system, daemon) - before + own
    taken = sorted(each for client in told for each in client["taken"])
    rate = sum(len(client["taken"]) / client["seconds"] for client in told)
    each = 1e6 / len(taken)
    return Registered(rate, taken[int(0.99 * (len(taken) - 1))] * 1e3, taken[-1] * 1e3, used * each, own * each)


def _cpu(system: System, daemon: Daemon | None) -> float:
    return system.cpu() + (daemon.cpu() if daemon is not None else 0.0)
