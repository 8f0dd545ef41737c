"""Logging: one line for each outside event, with the task's uid on it; JSON on request, fields and priorities under journald."""

import json
import logging
import os
import socket
import struct
import sys
import time
from collections import deque
from typing import TextIO

MEMBERS = ("uid", "zone", "action", "request_id")  # put on a record with `extra=`; shown when present
FIELDS = {"uid": "TASK_UID", "zone": "TASK_ZONE", "action": "TASK_ACTION", "request_id": "REQUEST_ID"}  # in the journal
JOURNAL = "/run/systemd/journal/socket"
RECENT_LINES, RECENT_LENGTH = 1000, 2000  # lines kept in memory, characters of each
PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


class TextFormatter(logging.Formatter):
    """`2026-01-02T03:04:05.678Z warning tracking: cannot poll zone vm1: ...`; journald gets `<4>` and no time."""

    def __init__(self, journald: bool) -> None:
        super().__init__()
        self._journald = journald

    def format(self, record: logging.LogRecord) -> str:
        room = record.name.removeprefix("task_daemon.")
        text = f"{record.levelname.lower()} {room}: {record.getMessage()}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        if self._journald:
            prefix = f"<{PRIORITIES.get(record.levelno, 6)}>"
            return "\n".join(prefix + line for line in text.splitlines())
        return f"{_when(record)} {text}"


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _when(record),
            "level": record.levelname.lower(),
            "room": record.name.removeprefix("task_daemon."),
            "message": record.getMessage(),
        }
        line |= {name: value for name in MEMBERS if (value := getattr(record, name, None)) is not None}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class Journal(logging.Handler):
    """Journald by its own protocol: the message with its members as fields (TASK_UID, TASK_ZONE, TASK_ACTION, REQUEST_ID). What
    it does not take at once (busy, too long) goes to `instead`, its handler of plain lines."""

    def __init__(self, instead: logging.Handler, path: str) -> None:
        super().__init__()
        self._instead = instead
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._socket.sendto(_journal_entry(record), socket.MSG_DONTWAIT, self._path)
        except OSError:
            self._instead.handle(record)
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        self._socket.close()
        super().close()


def _journal_entry(record: logging.LogRecord) -> bytes:
    room = record.name.removeprefix("task_daemon.")
    text = f"{room}: {record.getMessage()}"
    if record.exc_info:
        text += "\n" + logging.Formatter().formatException(record.exc_info)
    fields = {
        "MESSAGE": text,
        "PRIORITY": str(PRIORITIES.get(record.levelno, 6)),
        "SYSLOG_IDENTIFIER": "task-daemon",
        "TASK_DAEMON_ROOM": room,
    }
    fields |= {FIELDS[name]: str(value) for name in MEMBERS if (value := getattr(record, name, None)) is not None}
    return b"".join(_journal_field(name, value.encode("utf-8", "backslashreplace")) for name, value in fields.items())


def _journal_field(name: str, value: bytes) -> bytes:
    """systemd's JOURNAL_NATIVE_PROTOCOL: a value of several lines is preceded by its length."""
    if b"\n" in value:
        return name.encode() + b"\n" + struct.pack("<Q", len(value)) + value + b"\n"
    return name.encode() + b"=" + value + b"\n"


class Recent(logging.Handler):
    """The latest lines, in memory: the log goes to a place that whoever asks for it may not know or may not read."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(TextFormatter(journald=False))
        self._lines: deque[str] = deque(maxlen=RECENT_LINES)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.append(self.format(record)[:RECENT_LENGTH])
        except Exception:
            self.handleError(record)

    def lines(self) -> list[str]:
        """Oldest first; one with a traceback has several lines in it. Any thread."""
        self.acquire()
        try:
            return list(self._lines)
        finally:
            self.release()


recent = Recent()


def set_up(level: str, log_format: str, stream: TextIO = sys.stderr) -> None:
    """Log to `stream` and to `recent`. `level`: debug, info, warning, error; `log_format`: text, json."""
    handler: logging.Handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter(_is_journal(stream)))
    if log_format == "text" and _is_journal(stream) and os.path.exists(JOURNAL):
        handler = Journal(handler, JOURNAL)
    root = logging.getLogger()
    root.handlers[:] = [handler, recent]
    root.setLevel(logging.WARNING)
    logging.getLogger("task_daemon").setLevel(level.upper())
    logging.getLogger("tornado.access").propagate = False  # the API writes its own line


def _when(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"


def _is_journal(stream: TextIO) -> bool:
    """Whether the stream goes to journald: JOURNAL_STREAM names its device and inode (systemd.exec(5))."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"
