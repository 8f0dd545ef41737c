"""RQ, as its manual has it: a job that enqueues itself again after a while. Its SimpleWorker, which does not fork for each
job, takes a seventh of the CPU of the default one and is used here."""

from datetime import timedelta

from redis import Redis
from rq import Queue

from benchmarks.peers.operation import INTERVAL, PAYLOAD, REDIS, ended

queue = Queue(connection=Redis(unix_socket_path=str(REDIS)))


def watch(number: int, payload: str) -> None:
    if not ended(number):
        queue.enqueue_in(timedelta(seconds=INTERVAL), watch, number, payload, result_ttl=0)


def register(number: int, delay: float = 0.0) -> None:
    from benchmarks.peers import on_rq  # under the name that workers know, also when this is the main module

    if delay > 0:
        queue.enqueue_in(timedelta(seconds=delay), on_rq.watch, number, PAYLOAD, result_ttl=0)
    else:
        queue.enqueue(on_rq.watch, number, PAYLOAD, result_ttl=0)


_WORKER = ["-m", "rq.cli", "worker", "--with-scheduler", "--worker-class=rq.SimpleWorker", "--quiet", f"--url=unix://{REDIS}"]
WORKERS = [_WORKER] * 4
