"""The old service's call as it is shipped, against a daemon whose socket is `s` in the home."""

from benchmarks.peers.operation import HOME, PAYLOAD
from task_client import register_task

SOCKET = str(HOME / "s")


def register(number: int, delay: float = 0.0) -> None:  # noqa: ARG001 - the daemon has a grid of its own
    register_task(f"op-{number}", "simulated", "sim", unix_socket=SOCKET, labels={"payload": PAYLOAD})


WORKERS: list[list[str]] = []
