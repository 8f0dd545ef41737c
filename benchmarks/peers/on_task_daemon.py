"""This project's own client as it is shipped, against a daemon whose socket is `s` in the home."""

from benchmarks.peers.operation import HOME, PAYLOAD
from task_client import Client

client = Client(str(HOME / "s"))


def register(number: int, delay: float = 0.0) -> None:  # noqa: ARG001 - the daemon has a grid of its own
    client.register(f"op-{number}", "simulated", "sim", labels={"payload": PAYLOAD})


WORKERS: list[list[str]] = []
