"""The promise of the whole: SIGKILL at any moment, and nothing registered is forgotten, doubled or left untold. The proof is
`taskctl selftest --crash`; here it must also see every kind of broken promise."""

import os
from pathlib import Path

import pytest

from task_client.selftest.checks import broken_promises, settle
from task_client.selftest.crash import prove
from task_client.selftest.load import Load
from task_client.selftest.receiver import MoodyReceiver
from task_client.selftest.scratch import ScratchDaemon

KILLS = int(os.environ.get("TASK_DAEMON_KILLS", "300"))
SEED = int(os.environ.get("TASK_DAEMON_SEED", "20261121"))
CHUNK = 50  # kills of one daemon, so that two workers of pytest-xdist share them


@pytest.mark.crash
@pytest.mark.timeout(120 + 12 * CHUNK)  # alone on two cores a kill takes half a second
@pytest.mark.parametrize("seed", range(SEED, SEED + -(-KILLS // CHUNK)))
def test_f1_f2_i1_i2_i4_nothing_is_lost_doubled_or_untold_over_kills_at_random_moments(seed: int, short_path: Path) -> None:
    result = prove(short_path / "h", CHUNK, seed, burst=0.2)
    assert result.problems == [], f"seed {seed}"
    assert result.kills >= CHUNK
    assert result.tasks >= 20 * CHUNK
    assert result.deliveries > result.tasks, "no delivery had to be repeated: the receiver was in too good a mood"


@pytest.mark.crash
def test_the_proof_sees_every_broken_promise(short_path: Path) -> None:
    daemon = ScratchDaemon(short_path / "h")
    with MoodyReceiver(1) as receiver:
        try:
            daemon.start()
            load = Load(daemon.socket, receiver.url)
            load.allow(6)
            load.finish()
            with daemon.client() as client:
                assert settle(client) == []
                started = daemon.started_work()
                assert broken_promises(client, load, receiver, started) == []

                first, second, third, *_ = load.acknowledged
                uid = load.acknowledged
                receiver.told[uid[second]].add(("another-id", "task.succeeded"))
                del receiver.told[uid[third]]
                problems = broken_promises(client, load, receiver, [*started, started[0]])
                load.acknowledged["good-99"] = "t_99"
                load.acknowledged[first] = "t_1"
                problems += broken_promises(client, load, receiver, started)
        finally:
            daemon.discard()
    kinds = {problem.partition(":")[0] for problem in problems}
    assert kinds == {
        "acknowledged but lost",
        "never registered, and yet there",
        "an end that nobody was told of",
        "told in a wrong way",
        "started twice",
    }
