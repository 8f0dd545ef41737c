"""The default transport: kept connections to the Unix socket, and nothing between them and the caller.

A request is one piece, the whole of a small answer another. Answers as the daemon gives them are read here, by their bytes;
whatever is unusual in any way (a connection that is to close, chunks, folded or repeated headers, a head in pieces) is read by
the standard library's `http.client`, which is not even loaded before (`benchmarks/p05_clients.py` has figures).
"""

import os
import re
import socket
import struct
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import lru_cache

from task_client.errors import AnswerUnknown
from task_client.process import own_pid
from task_client.transport import Answer
from task_client.unix import open_unix

KEPT = 8  # idle connections kept for threads to share
PIECE = 64 * 1024  # bytes read at once
UNUSUAL = frozenset({"transfer-encoding", "connection", "proxy-connection", "keep-alive", "trailer", "upgrade"})
BODILESS = frozenset({204, 304})
HARMLESS = frozenset({"Accept", "Content-Type", "Idempotency-Key", "If-None-Match", "Prefer"})  # names the client sends
HOST = "Host: localhost\r\n"
QUICK = 0.05  # seconds

_QUICK = struct.pack("ll", 0, int(QUICK * 1e6))  # as the kernel wants it: seconds and microseconds

_WORD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch
_TARGET = re.compile(r"[!-~]+").fullmatch
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*").fullmatch
_STATUS = re.compile(r"HTTP/1\.1 ([2-5][0-9][0-9])(?: [\t\x20-\x7e\x80-\xff]*)?").fullmatch
_HEADERS = re.compile(  # a match is a whole line, so that any other line shows in the number of matches
    r"\r\n([!#$%&'*+.^_`|~0-9A-Za-z-]++):[\t ]*+([\t\x20-\x7e\x80-\xff]*+)(?<![\t ])(?=\r\n)"
).findall
_PLAIN = re.compile(  # as the daemon writes it
    rb"HTTP/1\.1 (?!204|304)([2-5][0-9][0-9]) [ -~]*\r\n("
    rb"(?:(?:Server|Content-Type|Date|Task-Daemon-Version|X-Request-Id|Location|Retry-After|Idempotency-Replayed|Etag)"
    rb": [!-~](?:[ -~]*[!-~])?\r\n)*+Content-Length: ([0-9]{1,18})\r\n)\r\n"
).match
_LENGTH = re.compile(r"[0-9]{1,18}").fullmatch


class SocketTransport:
    """`Transport` over the socket itself: idle connections are shared between threads, and left behind after a fork."""

    def __init__(self, unix_socket: str) -> None:
        self.unix_socket = unix_socket
        self._idle: deque[_Connection] = deque()  # its methods are atomic; a lock might be held at a fork
        self._pid = own_pid()

    def request(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | None = None, timeout: float = 30.0
    ) -> Answer:
        """As `Transport.request`. Raises ValueError for what cannot stand in a request."""
        asked = asked_for(method, target, headers, body)
        if self._pid != own_pid():  # parent and child must not read from one connection
            self.close()
            self._pid = own_pid()
        answer = None
        while answer is None:
            try:
                connection = self._idle.pop()
            except IndexError:
                connection = _Connection(self.unix_socket, timeout)
            try:
                answer = connection.ask(asked, method, timeout)
            except OSError as error:
                connection.close()
                why = f"no answer within {timeout:g} s" if isinstance(error, TimeoutError) else f"the connection broke: {error}"
                raise AnswerUnknown(f"cannot tell whether {method} {target} was carried out: {why}") from error
            except BaseException:
                connection.close()
                raise
            if connection.reusable and len(self._idle) < KEPT:
                self._idle.append(connection)
            else:
                connection.close()
        return answer

    def close(self) -> None:
        with suppress(IndexError):
            while True:
                self._idle.pop().close()

    def __del__(self) -> None:
        self.close()  # the old client of `legacy` has no way to say that it is done with


class _Connection:
    """`reusable`: another request may be sent on it.

    The kernel itself waits for the beginning of an answer, at most QUICK: nearly all are there by then, and Python would ask
    it to wait before each sending and reading. Whatever takes longer is waited for as `socket.settimeout` has it, because the
    kernel's wait begins anew with each signal; and so is everything on a socket that only seems to block, as gevent's.
    """

    __slots__ = ("_blocks", "_kept", "_recv", "_send", "_sock", "_timed", "close", "reusable")

    def __init__(self, path: str, timeout: float) -> None:
        self.reusable = True
        self._kept = False  # an answer has come on it
        self._timed = False
        self._sock = open_unix(path, timeout)
        self._sock.settimeout(None)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _QUICK)
        self._blocks = os.get_blocking(self._sock.fileno())
        self.close, self._send, self._recv = self._sock.close, self._sock.send, self._sock.recv

    def ask(self, asked: bytes, method: str, timeout: float) -> Answer | None:
        """Send a request, read its answer; None if the daemon had closed the connection before, and so did not get it.

        Raises OSError.
        """
        if timeout <= QUICK or not self._blocks:
            self._wait_at_most(timeout)
        if not self._sent(asked, timeout):
            self.reusable = False
            return None
        piece = self._received(PIECE, timeout)
        if not piece:
            raise ConnectionResetError("it was closed without an answer")
        head = None if method == "HEAD" else head_of(piece)
        if head is None:
            self._wait_at_most(timeout)
            answer = self._read_the_unusual(piece, method)
        else:
            status, headers, begin, length = head
            body = piece[begin:]
            if len(body) < length:
                body += self._more(length - len(body), timeout)
            elif len(body) > length:  # what nobody asked for is nobody's answer
                self.reusable = False
                body = body[:length]
            answer = Answer(status, headers, body)
        if self._timed:
            self._sock.settimeout(None)
            self._timed = False
        self._kept = True
        return answer

    def _wait_at_most(self, timeout: float) -> None:
        """From here to the end of the answer, each time."""
        self._sock.settimeout(timeout)
        self._timed = True

    def _sent(self, asked: bytes, timeout: float) -> bool:
        """False if the connection was used before and the daemon has closed it since: then nothing was sent."""
        try:
            sent = self._send(asked, socket.MSG_DONTWAIT)
        except BlockingIOError:
            sent = 0
        except (BrokenPipeError, ConnectionResetError):
            return not self._kept  # a refusal may have come on a new one, and then it is there to be read
        if sent < len(asked):
            self._wait_at_most(timeout)
            with suppress(BrokenPipeError, ConnectionResetError):  # as above, before the whole body was sent
                self._sock.sendall(memoryview(asked)[sent:])
        return True

    def _received(self, most: int, timeout: float) -> bytes:
        if not self._timed:
            try:
                return self._recv(most)
            except BlockingIOError:
                self._wait_at_most(timeout - QUICK)
        return self._recv(most)

    def _more(self, missing: int, timeout: float) -> bytes:
        pieces = []
        while missing:
            piece = self._received(min(missing, PIECE), timeout)
            if not piece:
                raise ConnectionResetError(f"it was closed {missing} bytes before the end of the answer")
            pieces.append(piece)
            missing -= len(piece)
        return b"".join(pieces)

    def _read_the_unusual(self, begun: bytes, method: str) -> Answer:
        from task_client.unusual import read

        answer, self.reusable = read(begun, self._sock, method)
        return answer


def asked_for(method: str, target: str, headers: Mapping[str, str], body: bytes | None) -> bytes:
    """Head and body of a request, as they are sent."""
    lines = ""
    host, measured = HOST, False
    for name, value in headers.items():
        if name not in HARMLESS:
            if not _WORD(name):
                raise _unsendable(name, value)
            folded = name.lower()
            if folded == "host":
                host = ""
            measured = measured or folded in ("content-length", "transfer-encoding")
        if not (value.isascii() and value.isprintable()) and not _VALUE(value):
            raise _unsendable(name, value)
        lines += f"{name}: {value}\r\n"
    if not measured and (body is not None or method in ("POST", "PUT", "PATCH")):
        lines += f"Content-Length: {len(body or b'')}\r\n"
    return f"{_request_line(method, target)}{host}{lines}\r\n".encode("latin-1") + (body or b"")


@lru_cache(maxsize=64)
def _request_line(method: str, target: str) -> str:
    if not _WORD(method) or not _TARGET(target):
        raise ValueError(f"cannot send the request {method!r} {target!r}: a word and a percent-encoded path are accepted")
    return f"{method} {target} HTTP/1.1\r\n"


def _unsendable(name: str, value: str) -> ValueError:
    return ValueError(f"cannot send the header {name!r}: {value!r}; accepted is Latin-1 without control characters")


class Headers(Mapping[str, str]):
    """Of a plain answer, read when they are looked at: hardly anybody does."""

    __slots__ = ("_found", "_lines")

    def __init__(self, lines: bytes) -> None:
        self._lines = lines
        self._found: dict[str, str] | None = None

    def __getitem__(self, name: str) -> str:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def _all(self) -> dict[str, str]:
        if self._found is None:
            pairs = (line.split(": ", 1) for line in self._lines.decode("ascii").splitlines())
            self._found = {name.lower(): value for name, value in pairs}
        return self._found


def head_of(piece: bytes) -> tuple[int, Mapping[str, str], int, int] | None:
    """Status, headers, where the body begins and its length; None if anything is not as the daemon writes it."""
    plain = _PLAIN(piece)
    if plain is not None:
        status, lines, length = plain.groups()
        return int(status), Headers(lines), plain.end(), int(length)
    end = piece.find(b"\r\n\r\n")
    if end < 0:
        return None
    text = piece[: end + 2].decode("latin-1")
    first, _, _ = text.partition("\r\n")
    found = _STATUS(first)
    lines = _HEADERS(text, len(first))
    headers = {name.lower(): value for name, value in lines}
    if found is None or not len(headers) == len(lines) == text.count("\r\n") - 1 or not UNUSUAL.isdisjoint(headers):
        return None
    status = int(found[1])
    if status in BODILESS:
        return status, headers, end + 4, 0
    length = headers.get("content-length", "")
    return (status, headers, end + 4, int(length)) if _LENGTH(length) else None
