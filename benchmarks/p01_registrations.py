"""P1: registrations, one `POST /v1/tasks` each, durable, over 8 kept connections from a lean client; beside them a bare web
server that answers the same bytes and stores nothing."""

from benchmarks.harness.baseline import Baseline
from benchmarks.harness.daemon import Daemon
from benchmarks.harness.load import load
from benchmarks.harness.row import Bench, Figure, Row, at_least, at_most, main

CONNECTIONS = 8

ROW = Row(
    "P1",
    "registrations, one `POST /v1/tasks` each, durable, 8 kept connections",
    [
        Figure("rate", "registrations", "/s", at_least(6500), gate=5000),
        Figure("p99", "99th percentile", "ms", at_most(5), gate=8),
        Figure("max", "slowest", "ms", at_most(50)),
        Figure("share", "of what a bare Tornado HTTPServer answers in the same run", "×", at_least(0.6)),
        Figure("bare", "a bare Tornado HTTPServer, nothing stored", "/s"),
        Figure("cpu", "CPU of the daemon for one", "µs"),
    ],
)


def measure(bench: Bench) -> None:
    with Daemon(bench.home("d")) as daemon, Baseline(bench.home("b"), daemon) as bare:
        for _ in bench.rounds():
            before = daemon.cpu()
            ours = load(daemon.socket, connections=CONNECTIONS, seconds=bench.seconds(3))
            cpu = (daemon.cpu() - before) / ours.tasks * 1e6
            limit = load(bare.socket, connections=CONNECTIONS, seconds=bench.seconds(3))
            bench.note(rate=ours.rate, p99=ours.p99_ms, max=ours.max_ms, share=ours.rate / limit.rate, bare=limit.rate, cpu=cpu)
        daemon.stop()


if __name__ == "__main__":
    main(ROW, measure)
