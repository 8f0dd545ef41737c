"""P8: registering while 1,000,000 tasks in 1,000 zones are watched every 60 s."""

import json

from benchmarks.harness.daemon import Daemon, config, draft
from benchmarks.harness.filling import fill, zones_table
from benchmarks.harness.load import load
from benchmarks.harness.row import Bench, Figure, Row, at_most, main
from benchmarks.harness.watching import watch

TASKS = 1_000_000
ZONES = 1000
INTERVAL = 60.0
REGISTERED_IN = "z00000"
MIB = 2**20

ROW = Row(
    "P8",
    "registering while 1,000,000 tasks in 1,000 zones are watched every 60 s",
    [
        Figure("memory", "RSS at its highest, after all were polled", "MiB", at_most(1024)),
        Figure("p99", "one registration, 99th percentile", "ms", at_most(20)),
        Figure("slowest", "one registration, slowest", "ms"),
        Figure("rate", "registrations over one kept connection", "/s"),
        Figure("cores", "CPU of the daemon while nobody registers", "cores"),
        Figure("loaded", "from start until all were taken in", "s"),
    ],
    rounds=1,
    note="the store is filled directly; every poll finds progress in every task",
)


def measure(bench: Bench) -> None:
    tasks, zones = bench.count(TASKS), bench.count(ZONES)
    for turn in bench.rounds():
        home = bench.home(f"d{turn}")
        fill(home / "w", tasks, zones)
        with Daemon(home, config(zones_table(zones), poll_interval=INTERVAL)) as daemon:
            loaded = daemon.until("all were taken in", lambda status: not status["loading"], within=90)
            watch(daemon, 10)
            alone = watch(daemon, bench.seconds(10))
            found = load(daemon.socket, seconds=bench.seconds(10), task=json.dumps(draft("@", REGISTERED_IN)))
            bench.note(
                memory=daemon.peak_rss() / MIB,
                p99=found.p99_ms,
                slowest=found.max_ms,
                rate=found.rate,
                cores=alone.cores,
                loaded=loaded,
            )
            daemon.kill()  # its last checkpoint is no part of this


if __name__ == "__main__":
    main(ROW, measure)
