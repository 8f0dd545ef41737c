"""P2: registrations over one kept connection, each after the answer to the one before."""

from benchmarks.harness.baseline import Baseline
from benchmarks.harness.daemon import Daemon
from benchmarks.harness.load import load
from benchmarks.harness.row import Bench, Figure, Row, at_least, at_most, main

ROW = Row(
    "P2",
    "registrations, durable, one connection in lockstep",
    [
        Figure("rate", "registrations", "/s", at_least(3500), gate=2500),
        Figure("p99", "99th percentile", "ms", at_most(1), gate=2),
        Figure("p50", "median", "ms"),
        Figure("bare", "a bare Tornado HTTPServer, nothing stored", "/s"),
        Figure("cpu", "CPU of the daemon for one", "µs"),
    ],
)


def measure(bench: Bench) -> None:
    with Daemon(bench.home("d")) as daemon, Baseline(bench.home("b"), daemon) as bare:
        for _ in bench.rounds():
            before = daemon.cpu()
            ours = load(daemon.socket, seconds=bench.seconds(3))
            cpu = (daemon.cpu() - before) / ours.tasks * 1e6
            limit = load(bare.socket, seconds=bench.seconds(2))
            bench.note(rate=ours.rate, p99=ours.p99_ms, p50=ours.p50_ms, bare=limit.rate, cpu=cpu)
        daemon.stop()


if __name__ == "__main__":
    main(ROW, measure)
