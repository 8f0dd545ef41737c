"""What programs print about their progress, as `Progress`.

Each parser takes one line and answers None for a line that is none of its own. The formats were recorded from Debian 12's
programs: `qemu-img convert -p` 7.2, `rsync --info=progress2` 3.2, `restic backup --json` 0.14.
"""

import re
from collections.abc import Callable

import msgspec
from msgspec import Struct

from task_daemon.core.model import Progress

Parser = Callable[[str], Progress | None]

_PERCENT = re.compile(r"(?<![\d.])(\d{1,3}(?:\.\d+)?) ?%")
_QEMU_IMG = re.compile(r"\((\d{1,3}\.\d+)/100%\)")
_RSYNC = re.compile(r"^\s*(\d[\d.,]*)([KMGTP]?)\s+(\d{1,3})%\s+\S+/s\s+\d+:\d\d:\d\d")


def percent(line: str) -> Progress | None:
    """Any program that prints `41%` or `41.5 %`: the last such number of the line."""
    found = _PERCENT.findall(line)
    return _of(found[-1]) if found else None


def qemu_img(line: str) -> Progress | None:
    """`    (14.00/100%)`"""
    found = _QEMU_IMG.search(line)
    return _of(found[1]) if found else None


def rsync(line: str) -> Progress | None:
    """`     87,326,720  41%   79.74MB/s    0:00:01 (xfr#1, to-chk=0/2)`. With `-h` the bytes are rounded: left out."""
    found = _RSYNC.match(line)
    if found is None:
        return None
    number, magnitude, share = found.groups()
    done = None if magnitude else int(re.sub(r"[.,]", "", number))
    return Progress(percent=float(share), done=done, unit=None if done is None else "bytes")


class _ResticStatus(Struct, tag_field="message_type", tag="status"):
    percent_done: float = 0.0
    total_bytes: int | None = None
    bytes_done: int = 0


class _ResticSummary(Struct, tag_field="message_type", tag="summary"):
    total_bytes_processed: int | None = None


_restic_line = msgspec.json.Decoder(_ResticStatus | _ResticSummary)


def restic(line: str) -> Progress | None:
    """`{"message_type":"status","percent_done":0.15,"total_bytes":209715200,"bytes_done":31494964}`

    While restic still counts the files there is no total yet, and its 0 % means "not known".
    """
    if not line.startswith("{"):
        return None
    try:
        said = _restic_line.decode(line.encode())
    except (msgspec.DecodeError, UnicodeEncodeError):
        return None
    if isinstance(said, _ResticSummary):
        total = said.total_bytes_processed
        return Progress(percent=100.0, done=total, total=total, unit="bytes")
    if said.total_bytes is None:
        return Progress(done=said.bytes_done, unit="bytes")
    return Progress(percent=min(100.0, 100 * said.percent_done), done=said.bytes_done, total=said.total_bytes, unit="bytes")


PARSERS: dict[str, Parser] = {"percent": percent, "rsync": rsync, "qemu-img": qemu_img, "restic": restic}


def newest(output: str, parser: Parser | None) -> Progress | None:
    """Progress from the end of an output. Without a parser the last line is shown as it is."""
    for line in reversed(lines_of(output)):
        progress = Progress(message=line[:200]) if parser is None else parser(line)
        if progress is not None:
            return progress
    return None


def lines_of(output: str) -> list[str]:
    """Non-empty lines; a carriage return ends one too, since that is how progress is drawn over itself."""
    return [line for line in (part.rstrip() for part in re.split(r"[\r\n]+", output)) if line]


def _of(number: str) -> Progress:
    return Progress(percent=min(100.0, float(number)))
