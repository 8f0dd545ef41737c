"""Connecting to Unix sockets, and their `http+unix` URLs."""

import errno
import os
import socket
from urllib.parse import quote, unquote

from task_client.errors import DaemonUnreachable

SCHEME = "http+unix"
LONGEST = 107  # bytes; `sun_path` of unix(7) holds 108 with the closing NUL

_WHY = {
    errno.ENOENT: ("there is no such socket", True),
    errno.ECONNREFUSED: ("nobody listens on it", True),
    errno.EAGAIN: ("too many are connecting at this moment; try again", True),
    errno.EACCES: ("permission denied; the socket's group may connect, ask to be a member", False),
    errno.ENOTDIR: ("a part of the path is not a directory", False),
}
_START = "; start the daemon with `taskctl start` or task_client.init_daemon_process()"


def open_unix(path: str, timeout: float | None) -> socket.socket:
    """A connected socket; `timeout` in seconds bounds each later operation, None waits for ever.

    Raises DaemonUnreachable. A full backlog is reported at once as `busy` (measured: with any time-out, connecting to
    AF_UNIX does not wait but fails with EAGAIN; without one it waits without bound).
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout)
        _connect(connection, path)
    except OSError as error:
        connection.close()
        why, retryable = _WHY.get(error.errno or 0, (error.strerror or str(error), False))
        hint = _START if error.errno in (errno.ENOENT, errno.ECONNREFUSED) else ""
        message = f"cannot connect to task-daemon at {path}: {why}{hint}"
        raise DaemonUnreachable(message, retryable, busy=error.errno == errno.EAGAIN) from error
    except BaseException:
        connection.close()
        raise
    return connection


def _connect(connection: socket.socket, path: str) -> None:
    """Connect by the path itself, or, when it is too long for the kernel, through a descriptor of its directory."""
    if len(os.fsencode(path)) <= LONGEST:
        connection.connect(path)
        return
    folder, name = os.path.split(path)
    directory = os.open(folder or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        short = f"/proc/self/fd/{directory}/{name}"
        if len(os.fsencode(short)) > LONGEST:
            raise OSError(errno.ENAMETOOLONG, f"the name {name!r} of the socket is too long; about 85 bytes are accepted")
        connection.connect(short)
    finally:
        os.close(directory)


def socket_url(path: str, target: str = "/") -> str:
    """`http+unix://<socket path, percent-encoded with no safe characters><target>`; a missing leading / is added."""
    return f"{SCHEME}://{quote(path, safe='')}{target if target.startswith('/') else '/' + target}"


def split_socket_url(url: str) -> tuple[str, str]:
    """Socket path (as it was written, upper case too) and target of an `http+unix` URL. Raises ValueError."""
    scheme, found, rest = url.partition("://")
    authority, slash, target = rest.partition("/")
    if scheme.lower() != SCHEME or not found or not authority:
        raise ValueError(f"cannot read URL {url!r}: accepted is {SCHEME}://<percent-encoded socket path>/path")
    return unquote(authority), slash + target or "/"
