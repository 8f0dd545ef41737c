"""P10: 1,000 and 10,000 tasks end at once and each end is told; and how long a single one takes.

The receiver is lean and runs in a process of its own. A rate counts from the moment the poll saw the ends (the `timestamp` of
the callbacks) until the last callback has come: the ends and their callbacks are put on disk within that time. The processor
time is the daemon's alone, for one task from being seen to the record of its receiver's answer. It logs as it
does by default: the first of a crowd, and how many others there are.
"""

import time
from typing import Any

from benchmarks.harness.daemon import Connection, Daemon, config, draft
from benchmarks.harness.receiver import Arrivals, Receiver
from benchmarks.harness.row import Bench, Figure, Row, at_least, at_most, main

CROWDS = (1_000, 10_000)
SINGLES = 200
ENDS_AFTER = 3.0  # seconds after registration; meanwhile the zone is paused, so that one poll sees all of a crowd
WITHIN = 60.0  # seconds

ZONE = f"""
[zones.sim]
backend = "simulated"
scenario = [{{ id = "single-*", finish_after = 0 }}, {{ id = "*", finish_after = {ENDS_AFTER} }}]
"""

ROW = Row(
    "P10",
    "many tasks end at once, and each end is told",
    [
        Figure("rate_1000", "of 1,000 at once, from seen to received", "/s", at_least(4000), gate=3000),
        Figure("all_1000", "until all of 1,000 were received", "s", at_most(0.4)),
        Figure("first_1000", "until the first of 1,000 was received", "s"),
        Figure("cpu_1000", "the daemon's processor time for each of 1,000", "ms", at_most(0.3)),
        Figure("rate_10000", "of 10,000 at once, from seen to received", "/s", at_least(4000), gate=3000),
        Figure("all_10000", "until all of 10,000 were received", "s"),
        Figure("cpu_10000", "the daemon's processor time for each of 10,000", "ms", at_most(0.3)),
        Figure("first_10000", "until the first of 10,000 was received", "s"),
        Figure("single_p50", "a single one, from seen to received", "ms"),
        Figure("single_p99", "the slowest of 100 single ones", "ms", at_most(10)),
    ],
    rounds=3,
)


def measure(bench: Bench) -> None:
    text = config(ZONE).replace('"warning"', '"info"')
    with Receiver(bench.home("r")) as receiver, Daemon(bench.home("d"), text) as daemon:
        for turn in bench.rounds():
            found: dict[str, float] = {}
            for count in CROWDS:
                found |= crowd(daemon, receiver, bench.count(count), count, f"{turn}-{count}")
            bench.note(**found, **singles(daemon, receiver, bench.count(SINGLES), turn))
        daemon.stop()


def crowd(daemon: Daemon, receiver: Receiver, count: int, name: int, prefix: str) -> dict[str, float]:
    receiver.forget()
    daemon.fill(count, lambda n: telling(receiver, f"{prefix}-{n}"))
    time.sleep(0.5)  # for their first polls
    daemon.ask("POST", "/v1/zones/sim/pause")
    if daemon.status()["live"] != count:
        raise SystemExit(f"cannot trust the figures: tasks ended before all {count} were registered")
    time.sleep(ENDS_AFTER)
    before = daemon.cpu()
    daemon.ask("POST", "/v1/zones/sim/resume")
    receiver.await_count(count, WITHIN, every=0.1)  # the receiver is to receive and not to be asked
    daemon.until("every outcome was on disk", lambda status: status["outbox"]["in_memory"] == 0 and status["live"] == 0)
    spent = daemon.cpu() - before
    came = receiver.arrivals()
    if len(set(came.subjects)) != count:
        raise SystemExit(f"cannot trust the figures: of {count} tasks {len(set(came.subjects))} were told")
    seen = min(came.seen)
    return {
        f"rate_{name}": count / (max(came.times) - seen),
        f"all_{name}": max(came.times) - seen,
        f"first_{name}": min(came.times) - seen,
        f"cpu_{name}": spent / count * 1000,
    }


def singles(daemon: Daemon, receiver: Receiver, count: int, turn: int) -> dict[str, float]:
    receiver.forget()
    with Connection(daemon.socket) as connection:
        for n in range(count):
            connection.ask("POST", "/v1/tasks", telling(receiver, f"single-{turn}-{n}"))
            receiver.await_count(n + 1, WITHIN)
    taken = sorted(took(receiver.arrivals()))
    return {"single_p50": taken[len(taken) // 2], "single_p99": taken[int(len(taken) * 0.99)]}


def took(came: Arrivals) -> list[float]:
    """Milliseconds from seen to received, of each."""
    return [max(0.0, at - seen) * 1000 for at, seen in zip(came.times, came.seen, strict=True)]


def telling(receiver: Receiver, name: str) -> dict[str, Any]:
    return draft(name, callback={"url": receiver.url})


if __name__ == "__main__":
    main(ROW, measure)
