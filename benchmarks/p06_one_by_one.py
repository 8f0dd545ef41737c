"""P6: watching 10,000 tasks whose backend takes 2 ms for each, one call a task, every 10 s on a fixed grid."""

from benchmarks.harness.daemon import Daemon, config
from benchmarks.harness.filling import fill, zones_table
from benchmarks.harness.row import Bench, Figure, Row, at_least, at_most, main
from benchmarks.harness.watching import calls_of_tasks, kept, told_tasks, watch

TASKS = 10_000
ZONES = 10  # two are always being asked: 10,000 times 2 ms in 10 s
INTERVAL = 10.0
SECONDS = 35.0
MIB = 2**20

ROW = Row(
    "P6",
    "watching 10,000 tasks polled one by one, 2 ms each, every 10 s",
    [
        Figure("share", "polls made of those due on the grid", "%", at_least(99.5)),
        Figure("late", "lateness, 99th percentile", "ms", at_most(50)),
        Figure("late_median", "lateness, median", "ms"),
        Figure("late_worst", "lateness, worst", "ms"),
        Figure("cpu", "CPU of the daemon for one poll", "ms", at_most(0.1)),
        Figure("memory", "RSS at its highest", "MiB", at_most(80)),
    ],
    rounds=1,
    note="ten zones; four workers; lateness is that of the call, against the times the daemon had told for each task",
)


def measure(bench: Bench) -> None:
    for turn in bench.rounds():
        home = bench.home(f"d{turn}")
        fill(home / "w", TASKS, ZONES)
        settings = "answer_after = 0.002\none_by_one = true\nlog_calls = true"
        with Daemon(home, config(zones_table(ZONES, settings), poll_interval=INTERVAL)) as daemon:
            daemon.until("all were taken in", lambda status: not status["loading"])
            watch(daemon, INTERVAL)  # at first all are polled at once
            told = told_tasks(daemon)
            window = watch(daemon, max(bench.seconds(SECONDS), 2.5 * INTERVAL))
            daemon.stop()
            calls = calls_of_tasks(daemon, ZONES)
            found = kept(told, calls, INTERVAL, window)
            polls = sum(1 for times in calls.values() for at in times if window.begin <= at < window.end)
            bench.note(
                share=found.share,
                late=found.p99,
                late_median=found.p50,
                late_worst=found.worst,
                cpu=window.cpu / polls * 1000,
                memory=window.rss / MIB,
            )


if __name__ == "__main__":
    main(ROW, measure)
