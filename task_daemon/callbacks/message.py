"""What goes over a connection: a request as bytes, and the answers that nearly all receivers give.

A usual answer has a status line, headers and a body of known length, and the connection stays open. Finding that out takes
two looks at the bytes, a tenth of what a whole parser takes; everything else is left to h11 (`unusual.py`).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

_WORD = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_START = re.compile(rf"{_WORD} [!-~]+")
_HEADERS = re.compile(rf"(?:{_WORD}: [\t -~]*\n)*")
_HEAD = re.compile(
    rb"HTTP/1\.1 ([2-5][0-9]{2})(?: [\t -~\x80-\xff]*)?\r\n((?:" + _WORD.encode() + rb":[\t -~\x80-\xff]*\r\n)*)\r\n"
)
_NOTABLE = re.compile(rb"^(content-length|retry-after|connection|transfer-encoding):(.*)\r$", re.IGNORECASE | re.MULTILINE)
_LENGTH = re.compile(rb"[0-9]{1,9}")
NO_BODY = (204, 304)
NOT_HTTP = "cannot write the request: its method, its path or a header is not valid HTTP"
ANSWER_LIMIT = 4096  # bytes of an answer's body that are read
LONGEST = 8192  # bytes of a usual answer with its headers; it is looked at anew with every piece of it that comes


def encoded(method: str, path: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """A request; `headers` without the one that says how long the body is.

    Raises ValueError, without the text, when it would not be valid HTTP.
    """
    return f"{_head(method, path, headers)}Content-Length: {len(body)}\r\n\r\n".encode("ascii") + body


class Form:
    """Requests that differ only in their bodies and in the values of the headers `blanks`: all the rest is looked at once.

    Raises ValueError as `encoded` does.
    """

    def __init__(self, method: str, path: str, headers: Mapping[str, str], blanks: Sequence[str]) -> None:
        fixed = _head(method, path, headers).replace("%", "%%")
        self._text = fixed + "".join(f"{name}: %s\r\n" for name in blanks) + "Content-Length: %d\r\n\r\n"

    def filled(self, values: tuple[str, ...], body: bytes) -> bytes:
        """`values` in the order of the blanks. Raises ValueError as `encoded` does."""
        text = "".join(values)
        if not (text.isascii() and text.isprintable()):
            raise ValueError(NOT_HTTP)
        return (self._text % (*values, len(body))).encode("ascii") + body


def _head(method: str, path: str, headers: Mapping[str, str]) -> str:
    start = f"{method} {path}"
    lines = "".join([f"{name}: {value}\n" for name, value in headers.items()])
    if not _START.fullmatch(start) or lines.count("\n") != len(headers) or not _HEADERS.fullmatch(lines):
        raise ValueError(NOT_HTTP)
    return f"{start} HTTP/1.1\n{lines}".replace("\n", "\r\n")


class NotHttp(ValueError):
    """The answer is not HTTP/1.1."""


class Response(NamedTuple):
    """`retry_after` is the header's text, if there was one."""

    status: int
    body: bytes
    retry_after: str | None = None


def usual(data: bytes, limit: int) -> Response | bool | None:
    """The answer, if `data` is exactly one usual one with a body of at most `limit` bytes. True: it may become one when more
    comes; None: it is something else."""
    if len(data) > LONGEST:
        return None
    return _usual(data, limit)


@lru_cache(maxsize=64)  # a receiver says the same again and again, with another date each second
def _usual(data: bytes, limit: int) -> Response | bool | None:
    match = _HEAD.match(data)
    if match is None:
        return None if b"\r\n\r\n" in data else True
    status, lines = int(match[1]), match[2]
    notable = _by_name(_NOTABLE.findall(lines))
    if notable is None:
        return None
    if status in NO_BODY:
        length = 0
    elif _LENGTH.fullmatch(notable.get(b"content-length", b"")):
        length = int(notable[b"content-length"])
    else:
        return None
    have = len(data) - match.end()
    if length > limit or have > length:
        return None
    if have < length:
        return True
    after = notable.get(b"retry-after")
    return Response(status, data[match.end() :], None if after is None else after.decode("latin-1"))


def _by_name(found: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes] | None:
    """None if one comes twice, or the answer is not one that keeps the connection and says its length."""
    notable: dict[bytes, bytes] = {}
    for name, value in found:
        name, value = name.lower(), value.strip(b" \t")
        if name in notable or name == b"transfer-encoding" or (name == b"connection" and value.lower() != b"keep-alive"):
            return None
        notable[name] = value
    return notable
