"""P3: `POST /v1/tasks:batch` with 100 and 500 registrations a body, over one connection."""

from benchmarks.harness.daemon import Daemon
from benchmarks.harness.load import load
from benchmarks.harness.row import Bench, Figure, Row, at_least, main

SIZES = (100, 500)

ROW = Row(
    "P3",
    "`POST /v1/tasks:batch`, durable, one connection",
    [
        Figure("rate_100", "100 registrations a body", "tasks/s", at_least(60_000), gate=30_000),
        Figure("rate_500", "500 registrations a body", "tasks/s", at_least(60_000), gate=30_000),
        Figure("p99_100", "99th percentile of a body of 100", "ms"),
        Figure("p99_500", "99th percentile of a body of 500", "ms"),
        Figure("cpu_100", "CPU of the daemon for one of 100", "µs"),
        Figure("cpu_500", "CPU of the daemon for one of 500", "µs"),
    ],
)


def measure(bench: Bench) -> None:
    for turn in bench.rounds():
        for size in SIZES:
            with Daemon(bench.home(f"d{turn}-{size}")) as daemon:  # a new one, so that all find the same number of live tasks
                before = daemon.cpu()
                found = load(daemon.socket, batch=size, seconds=bench.seconds(2))
                cpu = (daemon.cpu() - before) / found.tasks * 1e6
                bench.note(**{f"rate_{size}": found.rate, f"p99_{size}": found.p99_ms, f"cpu_{size}": cpu})
                daemon.stop()


if __name__ == "__main__":
    main(ROW, measure)
