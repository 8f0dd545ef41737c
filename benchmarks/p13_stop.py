"""P13: from SIGTERM to the end of the process with 100,000 live tasks, whose progress is not on disk yet."""

from benchmarks.harness.daemon import Daemon, config
from benchmarks.harness.filling import fill, zones_table
from benchmarks.harness.row import Bench, Figure, Row, at_most, main
from benchmarks.harness.watching import watch

TASKS = 100_000
ZONES = 100
INTERVAL = 10.0

ROW = Row(
    "P13",
    "SIGTERM to exit with 100,000 live tasks",
    [
        Figure("stop", "all of them have moved since the last checkpoint", "s", at_most(1)),
        Figure("dirty", "tasks written at the end", "tasks"),
    ],
    rounds=3,
)


def measure(bench: Bench) -> None:
    home = bench.home("d")
    fill(home / "w", bench.count(TASKS), ZONES)
    for _ in bench.rounds():
        with Daemon(home, config(zones_table(ZONES), poll_interval=INTERVAL)) as daemon:
            daemon.until("all were taken in", lambda status: not status["loading"])
            watch(daemon, INTERVAL)
            dirty = daemon.status()["dirty"]
            bench.note(stop=daemon.stop(), dirty=dirty)


if __name__ == "__main__":
    main(ROW, measure)
