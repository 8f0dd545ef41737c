"""P4: registrations on disks that are slower: every flush lasts 2 or 10 ms longer. Shows whether flushes are shared."""

from benchmarks.harness.daemon import Daemon
from benchmarks.harness.load import load
from benchmarks.harness.native import slow_disk
from benchmarks.harness.row import Bench, Figure, Row, at_least, at_most, main

CASES = ((2, 8), (2, 64), (10, 256))  # milliseconds more for a flush, connections

ROW = Row(
    "P4",
    "registrations on a slow disk",
    [
        Figure("rate_2_8", "flush + 2 ms, 8 connections", "/s", at_least(1800)),
        Figure("p99_2_8", "flush + 2 ms, 8 connections, 99th percentile", "ms", at_most(10)),
        Figure("rate_2_64", "flush + 2 ms, 64 connections", "/s", at_least(4500), gate=4000),
        Figure("p99_2_64", "flush + 2 ms, 64 connections, 99th percentile", "ms", at_most(30)),
        Figure("rate_10_256", "flush + 10 ms, 256 connections", "/s", at_least(3000)),
        Figure("p99_10_256", "flush + 10 ms, 256 connections, 99th percentile", "ms"),
    ],
)


def measure(bench: Bench) -> None:
    for turn in bench.rounds():
        for delay, connections in CASES:
            with Daemon(bench.home(f"d{turn}-{delay}-{connections}"), env=slow_disk(delay)) as daemon:
                found = load(daemon.socket, connections=connections, seconds=bench.seconds(2))
                bench.note(**{f"rate_{delay}_{connections}": found.rate, f"p99_{delay}_{connections}": found.p99_ms})
                daemon.stop()


if __name__ == "__main__":
    main(ROW, measure)
