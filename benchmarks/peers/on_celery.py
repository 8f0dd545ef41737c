"""Celery, as its manual has it: a bound task that retries itself; acknowledged late, so that a dead worker loses nothing."""

from typing import Any

from celery import Celery

from benchmarks.peers.operation import INTERVAL, PAYLOAD, REDIS, ended

app = Celery("peers", broker=f"redis+socket://{REDIS}")
app.conf.update(task_ignore_result=True, task_acks_late=True, broker_connection_retry_on_startup=True)


@app.task(bind=True, max_retries=None)
def watch(self: Any, number: int, payload: str) -> None:  # noqa: ARG001 - as large as a registration
    if not ended(number):
        raise self.retry(countdown=INTERVAL)


def register(number: int, delay: float = 0.0) -> None:
    watch.apply_async((number, PAYLOAD), countdown=delay or None)


WORKERS = [["-m", "celery", "-A", "benchmarks.peers.on_celery", "worker", "--concurrency=4", "--loglevel=ERROR"]]
