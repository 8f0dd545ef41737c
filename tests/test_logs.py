"""Log lines for people, for collectors and for journald."""

import io
import json
import logging
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from task_daemon import logs
from task_daemon.logs import RECENT_LENGTH, RECENT_LINES, Journal, JsonFormatter, Recent, TextFormatter, recent, set_up


def record(**extra: object) -> logging.LogRecord:
    made = logging.LogRecord("task_daemon.tracking", logging.WARNING, "f.py", 1, "cannot poll zone %s", ("vm1",), None)
    made.__dict__.update(extra)
    return made


def test_text_names_level_room_and_message() -> None:
    line = TextFormatter(journald=False).format(record())

    assert line.endswith("Z warning tracking: cannot poll zone vm1")


def test_journald_gets_a_priority_on_every_line_and_no_time() -> None:
    assert TextFormatter(journald=True).format(record()) == "<4>warning tracking: cannot poll zone vm1"


def test_json_carries_the_task() -> None:
    line = json.loads(JsonFormatter().format(record(uid="u-1", zone="vm1")))

    assert (line["level"], line["room"], line["uid"], line["zone"]) == ("warning", "tracking", "u-1", "vm1")


def test_set_up_logs_to_one_stream_at_the_asked_level() -> None:
    root, ours = logging.getLogger(), logging.getLogger("task_daemon")
    before, level, own = root.handlers[:], root.level, ours.level
    stream = io.StringIO()
    try:
        set_up("warning", "text", stream)
        logging.getLogger("task_daemon.api").info("not shown")
        logging.getLogger("task_daemon.api").warning("shown")
    finally:
        root.handlers[:] = before
        root.setLevel(level)
        ours.setLevel(own)

    assert stream.getvalue().endswith("warning api: shown\n")
    assert "not shown" not in stream.getvalue()


def test_recent_keeps_the_latest_lines_and_cuts_long_ones() -> None:
    recent = Recent()
    for number in range(RECENT_LINES + 5):
        recent.handle(logging.makeLogRecord({"name": "task_daemon.api", "levelname": "INFO", "msg": f"line {number}"}))
    recent.handle(logging.makeLogRecord({"name": "task_daemon.api", "msg": "x" * 10_000}))
    lines = recent.lines()

    assert len(lines) == RECENT_LINES
    assert lines[0].endswith(" info api: line 6")
    assert len(lines[-1]) == RECENT_LENGTH


def test_set_up_logs_to_recent_too() -> None:
    root, ours = logging.getLogger(), logging.getLogger("task_daemon")
    before, level, own = root.handlers[:], root.level, ours.level
    try:
        set_up("info", "json", io.StringIO())
        logging.getLogger("task_daemon.api").info("kept in memory")
    finally:
        root.handlers[:] = before
        root.setLevel(level)
        ours.setLevel(own)

    assert recent.lines()[-1].endswith(" info api: kept in memory")


class Kept(logging.Handler):
    """What went the other way."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def journald(short_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(short_path / "journal"))
        listening.settimeout(10)
        yield listening


def entry(datagram: bytes) -> dict[str, str]:
    """The fields, as systemd's JOURNAL_NATIVE_PROTOCOL has them."""
    found = {}
    while datagram:
        name, mark, rest = min((datagram.partition(mark) for mark in (b"=", b"\n")), key=lambda parts: len(parts[0]))
        if mark == b"=":
            value, _, datagram = rest.partition(b"\n")
        else:
            (size,) = struct.unpack("<Q", rest[:8])
            value, datagram = rest[8 : 8 + size], rest[8 + size + 1 :]
        found[name.decode()] = value.decode()
    return found


def test_the_journal_gets_the_task_as_fields(journald: socket.socket) -> None:
    other = Kept()
    with closing(Journal(other, journald.getsockname())) as journal:
        journal.handle(record(uid="u-1", zone="vm1", action="backup"))

    assert entry(journald.recv(65536)) == {
        "MESSAGE": "tracking: cannot poll zone vm1",
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "task-daemon",
        "TASK_DAEMON_ROOM": "tracking",
        "TASK_UID": "u-1",
        "TASK_ZONE": "vm1",
        "TASK_ACTION": "backup",
    }
    assert other.records == []


def test_a_message_of_several_lines_cannot_forge_a_field(journald: socket.socket) -> None:
    forged = logging.makeLogRecord({"name": "task_daemon.api", "levelno": logging.INFO, "msg": "one\nPRIORITY=0\ntwo"})
    with closing(Journal(Kept(), journald.getsockname())) as journal:
        journal.handle(forged)
    found = entry(journald.recv(65536))

    assert (found["MESSAGE"], found["PRIORITY"]) == ("api: one\nPRIORITY=0\ntwo", "6")


def test_what_the_journal_does_not_take_is_written_as_a_line(journald: socket.socket, short_path: Path) -> None:
    other = Kept()
    with closing(Journal(other, str(short_path / "nobody"))) as nowhere:
        nowhere.handle(record())
    long = logging.makeLogRecord({"name": "task_daemon.api", "msg": "x" * 10_000_000})
    with closing(Journal(other, journald.getsockname())) as journal:
        journal.handle(long)

    assert len(other.records) == 2


def test_under_systemd_the_journal_is_spoken_to(journald: socket.socket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    root, ours = logging.getLogger(), logging.getLogger("task_daemon")
    before, level, own = root.handlers[:], root.level, ours.level
    monkeypatch.setattr(logs, "JOURNAL", journald.getsockname())
    with (tmp_path / "stderr").open("w") as stream:
        about = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{about.st_dev}:{about.st_ino}")
        try:
            set_up("info", "text", stream)
            logging.getLogger("task_daemon.tracking").info("told", extra={"uid": "u-2"})
        finally:
            root.handlers[0].close()
            root.handlers[:] = before
            root.setLevel(level)
            ours.setLevel(own)

    assert entry(journald.recv(65536))["TASK_UID"] == "u-2"
    assert (tmp_path / "stderr").read_text() == ""
