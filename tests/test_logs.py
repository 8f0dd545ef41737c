"""Log lines for people, for collectors and for journald."""

import io
import json
import logging

from task_daemon.logs import RECENT_LENGTH, RECENT_LINES, JsonFormatter, Recent, TextFormatter, recent, set_up


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
