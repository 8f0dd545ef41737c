"""What is spoken with the service manager: sd_notify(3), the watchdog, socket activation; a few lines are all it takes."""

import os
import socket

FIRST_INHERITED = 3  # sd_listen_fds(3): the first descriptor that is handed over


def notify(state: str) -> bool:
    """Send `READY=1`, `WATCHDOG=1`, `STOPPING=1` and the like; False if nobody asked for it."""
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


def watchdog_seconds() -> float | None:
    """Within how many seconds a sign of life is expected, again and again; None if nobody waits for one."""
    micros, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not micros.isdigit() or int(micros) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(micros) / 1e6


def inherited_socket() -> int | None:
    """The descriptor of the listening socket that the service manager opened for us; None if it did not.

    Takes the variables away, so that no command we start believes it was meant. Raises ValueError when there is more than one.
    """
    pid, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdigit() or count == "0":
        return None
    for descriptor in range(FIRST_INHERITED, FIRST_INHERITED + int(count)):
        os.set_inheritable(descriptor, False)
    if count != "1":
        raise ValueError(f"cannot serve on {count} sockets: LISTEN_FDS must be 1; leave one ListenStream= in the socket unit")
    return FIRST_INHERITED
