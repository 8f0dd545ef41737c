"""Files that hold a secret: read only if nobody else can read or write them."""

import os
import stat

MOST = 64 * 1024  # bytes


def read_secret(path: str) -> str:
    """The text of a file that only its owner, who is root or this process, can read and write.

    Looks at what was opened, not at a name that may change meanwhile. Raises OSError, ValueError (never with a part of the text).
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is not a regular file")
        mode = stat.S_IMODE(status.st_mode)
        if mode & 0o077:
            raise ValueError(f"its mode {mode:04o} lets others read or write it; accepted is 0600 or less, run chmod 600 {path}")
        if status.st_uid not in (0, os.geteuid()):
            raise ValueError(f"it belongs to user {status.st_uid}; accepted are root and user {os.geteuid()}")
        raw = os.read(descriptor, MOST)
    finally:
        os.close(descriptor)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
