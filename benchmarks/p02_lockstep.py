"""P2: registrations over one kept connection, each after the answer to the one before; beside them what cannot be left out: an
answer of a bare web server, and a commit of one row in SQLite."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path

from benchmarks.harness.baseline import Baseline
from benchmarks.harness.daemon import Daemon
from benchmarks.harness.load import load
from benchmarks.harness.row import Bench, Figure, Row, at_least, at_most, main

COMMITS = 500
SHARE, SHARE_AT_LEAST = 0.74, 0.53
"""The target and the gate of the rate, 3,500 and 2,500, as shares of what a bare server with a commit reached where they were
set (4,721/s, a flush taking 44 us): on a machine that is slower or flushes later, these can be compared."""

ROW = Row(
    "P2",
    "registrations, durable, one connection in lockstep",
    [
        Figure("rate", "registrations", "/s", at_least(3500), gate=2500),
        Figure("p99", "99th percentile", "ms", at_most(1), gate=2),
        Figure("p50", "median", "ms"),
        Figure("bare", "a bare Tornado HTTPServer, nothing stored", "/s"),
        Figure("commit", "one row in SQLite and its commit, alone", "ms"),
        Figure("limit", "that server and that commit, one after the other", "/s"),
        Figure("share", "of that", "×", at_least(SHARE), gate=SHARE_AT_LEAST),
        Figure("cpu", "CPU of the daemon for one", "µs"),
    ],
    note="the limit has no checks, no indexes and no event; on a disk that flushes sooner it is higher. Its share has the same "
    "target and gate as the rate: where those were set, the limit was 4,721/s",
)


def measure(bench: Bench) -> None:
    with Daemon(bench.home("d")) as daemon, Baseline(bench.home("b"), daemon) as bare:
        for turn in bench.rounds():
            before = daemon.cpu()
            ours = load(daemon.socket, seconds=bench.seconds(3))
            cpu = (daemon.cpu() - before) / ours.tasks * 1e6
            answers = load(bare.socket, seconds=bench.seconds(2)).rate
            commit = commit_seconds(bench.home(f"c{turn}") / "one.db")
            limit = 1 / (1 / answers + commit)
            bench.note(
                rate=ours.rate,
                p99=ours.p99_ms,
                p50=ours.p50_ms,
                bare=answers,
                commit=commit * 1e3,
                limit=limit,
                share=ours.rate / limit,
                cpu=cpu,
            )
        daemon.stop()


def commit_seconds(path: Path) -> float:
    """On the average, once the WAL is written over and no longer grows."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL").fetchall()
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE task (n INTEGER PRIMARY KEY, body TEXT)")
        for turn in range(2):
            began = time.perf_counter()
            for n in range(COMMITS):
                connection.execute("INSERT INTO task VALUES (?, ?)", (turn * COMMITS + n, "x" * 300))
            connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
        return (time.perf_counter() - began) / COMMITS


if __name__ == "__main__":
    main(ROW, measure)
