"""P9: memory for each live task: how much RSS grows between 20,000 and 100,000 of them, all of which were polled."""

from benchmarks.harness.daemon import Daemon, config
from benchmarks.harness.filling import fill, zones_table
from benchmarks.harness.row import Bench, Figure, Row, at_most, main
from benchmarks.harness.watching import watch

FEW, MANY = 20_000, 100_000
IN_A_ZONE = 1000
INTERVAL = 5.0

ROW = Row(
    "P9",
    "memory for each live task",
    [
        Figure("bytes", "RSS for each task more", "bytes", at_most(600), gate=1024),
        Figure("few", f"RSS with {FEW:,} live tasks", "MiB"),
        Figure("many", f"RSS with {MANY:,} live tasks", "MiB"),
    ],
    rounds=1,
    note="running tasks with progress, each polled and changed at least once; the store's page cache is full in both",
)


def measure(bench: Bench) -> None:
    for turn in bench.rounds():
        few, many = (rss(bench, f"{turn}-{tasks}", bench.count(tasks)) for tasks in (FEW, MANY))
        bench.note(bytes=(many - few) / (bench.count(MANY) - bench.count(FEW)), few=few / 2**20, many=many / 2**20)


def rss(bench: Bench, name: str, tasks: int) -> int:
    home = bench.home(name)
    zones = max(1, tasks // IN_A_ZONE)
    fill(home / "w", tasks, zones)
    with Daemon(home, config(zones_table(zones), poll_interval=INTERVAL)) as daemon:
        daemon.until("all were taken in", lambda status: not status["loading"])
        watch(daemon, INTERVAL + 1)
        found = daemon.rss()
        daemon.stop()
    return found


if __name__ == "__main__":
    main(ROW, measure)
