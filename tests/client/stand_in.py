"""Stands in for the daemon where only its start matters: lock, socket, exit codes. Run as a program.

What it is to do is the environment's STAND_IN: `serve`, `die` (with words on stderr, code 2) or `lose` (the race, code 3).
"""

import fcntl
import os
import signal
import socket
import sys


def main() -> int:
    options = dict(option.lstrip("-").split("=", 1) for option in sys.argv[1:])
    plan = os.environ.get("STAND_IN", "serve")
    print("stand-in:", plan, sorted(options), flush=True)
    if plan == "die":
        print("cannot read configuration task-daemon.toml: no table [zones.x]", file=sys.stderr)
        return 2
    if plan == "lose":
        return 3
    lock = os.open(f"{options['workspace']}/lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return 3
    print("inherited:", sorted(int(name) for name in os.listdir("/proc/self/fd") if int(name) > 2), flush=True)
    print("session:", os.getsid(0) == os.getpid(), "cwd:", os.getcwd(), flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(options["unix-socket"])
    listener.listen(64)
    listener.settimeout(60)
    while True:
        try:
            listener.accept()[0].close()
        except TimeoutError:
            return 4


if __name__ == "__main__":
    sys.exit(main())
