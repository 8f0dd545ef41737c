"""Telling the service manager how we are: sd_notify(3) in a few lines, because that is all it takes."""

import os
import socket


def notify(state: str) -> bool:
    """Send `READY=1`, `STOPPING=1` and the like; False if nobody asked for it."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        try:
            channel.sendto(state.encode(), address)
        except OSError:
            return False
    return True
