"""What every peer watches, whatever it is built with: an operation that is looked at, and told about when it has ended.

Runs in the peer's worker processes, which know it by their environment (`settings`). Standard library and requests only.
"""

import os
import struct
import time
from pathlib import Path

LOOK = struct.Struct("<Id")  # number of the operation, monotonic time
PAYLOAD = "x" * 160  # with the other arguments about 200 bytes, as much as a registration has

HOME = Path(os.environ.get("PEER_HOME", "."))  # of the store; `redis` in it is the socket of Redis
INTERVAL = float(os.environ.get("PEER_INTERVAL", "10"))  # seconds between two looks
LASTS = float(os.environ.get("PEER_LOOK_LASTS", "0.002"))  # seconds one look takes
TELL = os.environ.get("PEER_TELL", "")  # URL of a receiver: operations have ended when they are looked at
REDIS = HOME / "redis"
LOOKS = HOME / "looks"


def settings(home: Path, interval: float, lasts: float, tell: str) -> dict[str, str]:
    """The environment of workers and clients."""
    return {"PEER_HOME": str(home), "PEER_INTERVAL": str(interval), "PEER_LOOK_LASTS": str(lasts), "PEER_TELL": tell}


def ended(number: int) -> bool:
    """One look at an operation, which takes a while as a storage's answer does; whether it has ended and was told about."""
    record(number)
    if LASTS:
        time.sleep(LASTS)
    if TELL:
        import requests

        requests.post(TELL, json={"data": {"task": {"id": f"op-{number}"}}}, timeout=10)
    return bool(TELL)


_file = None


def record(number: int) -> None:
    global _file
    if _file is None:
        _file = os.open(LOOKS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(_file, LOOK.pack(number, time.monotonic()))


def looks(path: Path) -> list[tuple[int, float]]:
    """What was recorded."""
    return list(LOOK.iter_unpack(path.read_bytes())) if path.exists() else []
