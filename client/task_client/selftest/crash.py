"""Kill the daemon again and again under load, and look whether a promise was broken."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from task_client.errors import ClientError
from task_client.selftest.checks import broken_promises, settle
from task_client.selftest.disk import Cost, measure
from task_client.selftest.load import Load
from task_client.selftest.receiver import MoodyReceiver
from task_client.selftest.scratch import ScratchDaemon, ScratchFailed

TASKS_A_ROUND = 20
AT_THE_START = 0.3  # chance that a round kills while the daemon is still starting
STARTING, SERVING = 0.6, 0.25  # seconds within which the daemon is killed after its start, and after it accepts connections


@dataclass
class Result:
    """`problems`: one sentence for each broken promise. `home` holds the evidence: store, log, starts."""

    home: Path
    seed: int
    kills: int = 0
    starts_cut_short: int = 0
    tasks: int = 0
    deliveries: int = 0
    seconds: float = 0.0
    registrations_per_second: float = 0.0
    commits_per_second: float = 0.0
    disk: Cost | None = None
    problems: list[str] = field(default_factory=list)


def prove(home: Path, rounds: int, seed: int, burst: float = 1.0, said: Callable[[int], None] = lambda _round: None) -> Result:
    """One self-test in the directory `home`, which is made. `burst`: seconds for which the rate of registrations is measured
    before the first kill; `said` hears of every round."""
    result = Result(home, seed)
    daemon = ScratchDaemon(home)
    began = time.monotonic()
    result.disk = measure(home)
    with MoodyReceiver(seed) as receiver:
        load = Load(daemon.socket, receiver.url)
        try:
            daemon.start()
            _burst(daemon, load, burst, result)
            _kill_again_and_again(daemon, load, rounds, result, said)
            load.finish()
            with daemon.client() as client:
                result.problems += settle(client)
                result.problems += broken_promises(client, load, receiver, daemon.started_work())
            daemon.stop()
        except (ScratchFailed, ClientError) as error:
            result.problems.append(str(error))
        finally:
            load.abandon()
            daemon.discard()
        result.tasks, result.deliveries = len(load.acknowledged), receiver.requests
    result.seconds = time.monotonic() - began
    return result


def _burst(daemon: ScratchDaemon, load: Load, seconds: float, result: Result) -> None:
    """As many registrations as this disk takes, for a moment."""
    with daemon.client() as client:
        before, began = _commits(client.info()), time.monotonic()
        end = began + seconds
        while time.monotonic() < end:
            load.allow(max(0, 100 + len(load.acknowledged) - load.allowed))
            time.sleep(0.01)
        took = time.monotonic() - began
        result.registrations_per_second = len(load.acknowledged) / took
        result.commits_per_second = (_commits(client.info()) - before) / took


def _commits(info: dict[str, object]) -> int:
    status = info["status"]
    return int(status["store"]["commits"]) if isinstance(status, dict) else 0


def _kill_again_and_again(daemon: ScratchDaemon, load: Load, rounds: int, result: Result, said: Callable[[int], None]) -> None:
    moments = random.Random(result.seed)  # noqa: S311 - moments, no secrets
    for number in range(rounds):
        load.allow(TASKS_A_ROUND)
        time.sleep(moments.uniform(0.0, SERVING))
        daemon.kill()
        result.kills += 1
        if moments.random() < AT_THE_START:
            daemon.start(ready=False)
            time.sleep(moments.uniform(0.0, STARTING))
            daemon.kill()
            result.kills += 1
            result.starts_cut_short += 1
        daemon.start()
        said(number + 1)
