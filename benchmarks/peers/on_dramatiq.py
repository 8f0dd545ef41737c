"""Dramatiq, as its manual has it: an actor that sends itself a delayed message. Redis."""

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from benchmarks.peers.operation import INTERVAL, PAYLOAD, REDIS, ended

broker = RedisBroker(url=f"unix://{REDIS}")
dramatiq.set_broker(broker)


@dramatiq.actor
def watch(number: int, payload: str) -> None:
    if not ended(number):
        watch.send_with_options(args=(number, payload), delay=int(INTERVAL * 1000))


def register(number: int, delay: float = 0.0) -> None:
    watch.send_with_options(args=(number, PAYLOAD), delay=int(delay * 1000) or None)


WORKERS = [["-m", "dramatiq", "benchmarks.peers.on_dramatiq", "--processes=2", "--threads=8"]]
