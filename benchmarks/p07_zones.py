"""P7: watching 100,000 tasks in 100 zones, one call for all tasks of a zone, every 10 s. All of them move all the time."""

from benchmarks.harness.daemon import Daemon, config
from benchmarks.harness.filling import fill, zones_table
from benchmarks.harness.row import Bench, Figure, Row, at_least, at_most, main
from benchmarks.harness.watching import calls_of_zones, kept, told_zones, watch

TASKS = 100_000
ZONES = 100
INTERVAL = 10.0
SECONDS = 35.0
SETTLED = 30.0  # seconds after its start; the regular checkpoint at 60 lies within the window, which is shorter than a minute
MIB = 2**20

ROW = Row(
    "P7",
    "watching 100,000 tasks in 100 zones, one call a zone, every 10 s",
    [
        Figure("share", "polls made of those due on the grid", "%", at_least(99.9)),
        Figure("late", "lateness, 99th percentile", "ms", at_most(100), gate=250),
        Figure("late_worst", "lateness, worst", "ms"),
        Figure("cores", "CPU of the daemon", "cores", at_most(0.25), gate=0.5),
        Figure("cpu", "CPU for one task and poll", "µs", at_most(25)),
        Figure("memory", "RSS at its highest", "MiB", at_most(150), gate=200),
    ],
    rounds=1,
    note="every poll finds progress in every task; the window holds a checkpoint of all of it",
)


def measure(bench: Bench) -> None:
    tasks = bench.count(TASKS)
    for turn in bench.rounds():
        home = bench.home(f"d{turn}")
        fill(home / "w", tasks, ZONES)
        with Daemon(home, config(zones_table(ZONES, "log_calls = true"), poll_interval=INTERVAL)) as daemon:
            daemon.until("all were taken in", lambda status: not status["loading"])
            watch(daemon, bench.seconds(SETTLED))
            told = told_zones(daemon)
            window = watch(daemon, max(bench.seconds(SECONDS), 2.5 * INTERVAL))
            daemon.stop()
            calls = calls_of_zones(daemon, ZONES, tasks // ZONES)
            found = kept(told, calls, INTERVAL, window)
            polls = sum(1 for times in calls.values() for at in times if window.begin <= at < window.end) * tasks / ZONES
            bench.note(
                share=found.share,
                late=found.p99,
                late_worst=found.worst,
                cores=window.cores,
                cpu=window.cpu / polls * 1e6,
                memory=window.rss / MIB,
            )


if __name__ == "__main__":
    main(ROW, measure)
