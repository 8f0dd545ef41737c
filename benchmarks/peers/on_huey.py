"""Huey, as its manual has it: a task that raises RetryTask until there is nothing more to watch. SQLite, WAL, synchronous."""

from huey import SqliteHuey
from huey.exceptions import RetryTask

from benchmarks.peers.operation import HOME, INTERVAL, PAYLOAD, ended

huey = SqliteHuey(filename=str(HOME / "huey.db"), results=False)


@huey.task()
def watch(number: int, payload: str) -> None:  # noqa: ARG001 - as large as a registration
    if not ended(number):
        raise RetryTask(delay=INTERVAL)


def register(number: int, delay: float = 0.0) -> None:
    if delay > 0:
        watch.schedule(args=(number, PAYLOAD), delay=delay)
    else:
        watch(number, PAYLOAD)


WORKERS = [["-m", "huey.bin.huey_consumer", "benchmarks.peers.on_huey.huey", "--workers=4", "--worker-type=thread", "--quiet"]]
