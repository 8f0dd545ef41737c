"""The default transport: kept connections to the Unix socket, and nothing between them and the caller.

A request is one piece, the whole of a small answer another. Answers as the daemon gives them are read here, by their bytes;
whatever is unusual in any way (a connection that is to close, chunks, folded or repeated headers, a head in pieces) is read by
the standard library's `http.client`, which is not even loaded before (`benchmarks/p05_clients.py` has figures).
"""

import os
import re
import select
from collections import deque
from collections.abc import Mapping
from contextlib import suppress

from task_client.errors import AnswerUnknown
from task_client.transport import Answer
from task_client.unix import open_unix

KEPT = 8  # idle connections kept for threads to share
PIECE = 64 * 1024  # bytes read at once
UNUSUAL = frozenset({"transfer-encoding", "connection", "proxy-connection", "keep-alive", "trailer", "upgrade"})
BODILESS = frozenset({204, 304})

_WORD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch
_TARGET = re.compile(r"[!-~]+").fullmatch
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*").fullmatch
_STATUS = re.compile(r"HTTP/1\.1 ([2-5][0-9][0-9])(?: [\t\x20-\x7e\x80-\xff]*)?").fullmatch
_HEADERS = re.compile(  # a match is a whole line, so that any other line shows in the number of matches
    r"\r\n([!#$%&'*+.^_`|~0-9A-Za-z-]++):[\t ]*+([\t\x20-\x7e\x80-\xff]*+)(?<![\t ])(?=\r\n)"
).findall
_LENGTH = re.compile(r"[0-9]{1,18}").fullmatch


class SocketTransport:
    """`Transport` over the socket itself: idle connections are shared between threads, and left behind after a fork."""

    def __init__(self, unix_socket: str) -> None:
        self.unix_socket = unix_socket
        self._idle: deque[_Connection] = deque()  # its methods are atomic; a lock might be held at a fork
        self._pid = os.getpid()

    def request(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | None = None, timeout: float = 30.0
    ) -> Answer:
        """As `Transport.request`. Raises ValueError for what cannot stand in a request."""
        asked = asked_for(method, target, headers, body)
        connection = self._connected(timeout)
        try:
            answer = connection.ask(asked, method)
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

    def _connected(self, timeout: float) -> "_Connection":
        """A connection on which nothing was sent yet since the last answer. Raises DaemonUnreachable."""
        if self._pid != os.getpid():  # parent and child must not read from one connection
            self.close()
            self._pid = os.getpid()
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread was quicker
                break
            if connection.is_idle():
                connection.set_timeout(timeout)
                return connection
            connection.close()
        return _Connection(self.unix_socket, timeout)


class _Connection:
    """`reusable`: another request may be sent on it."""

    def __init__(self, path: str, timeout: float) -> None:
        self.reusable = True
        self._timeout = timeout
        self._sock = open_unix(path, timeout)
        self.close = self._sock.close
        self._poll = select.poll()
        self._poll.register(self._sock.fileno(), select.POLLIN)

    def set_timeout(self, timeout: float) -> None:
        if timeout != self._timeout:
            self._sock.settimeout(timeout)
            self._timeout = timeout

    def is_idle(self) -> bool:
        """Nothing is there to be read: the daemon has neither closed it nor said anything that nobody asked for."""
        return not self._poll.poll(0)

    def ask(self, asked: bytes, method: str) -> Answer:
        """Send a request, read its answer. Raises OSError."""
        # A refusal may have come before the whole body was sent, and then it is there to be read.
        with suppress(BrokenPipeError, ConnectionResetError):
            self._sock.sendall(asked)
        piece = self._sock.recv(PIECE)
        if not piece:
            raise ConnectionResetError("it was closed without an answer")
        head = None if method == "HEAD" else head_of(piece)
        if head is None:
            return self._read_the_unusual(piece, method)
        status, headers, begin, length = head
        body = piece[begin:]
        if len(body) < length:
            body += self._more(length - len(body))
        elif len(body) > length:  # what nobody asked for is nobody's answer
            self.reusable = False
            body = body[:length]
        return Answer(status, headers, body)

    def _more(self, missing: int) -> bytes:
        pieces = []
        while missing:
            piece = self._sock.recv(min(missing, PIECE))
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
    if not _WORD(method) or not _TARGET(target):
        raise ValueError(f"cannot send the request {method!r} {target!r}: a word and a percent-encoded path are accepted")
    lines = [f"{method} {target} HTTP/1.1"]
    hosted = measured = False
    for name, value in headers.items():
        if not _WORD(name) or not _VALUE(value):
            raise ValueError(f"cannot send the header {name!r}: {value!r}; accepted is Latin-1 without control characters")
        lines.append(f"{name}: {value}")
        folded = name.lower()
        hosted = hosted or folded == "host"
        measured = measured or folded in ("content-length", "transfer-encoding")
    if not hosted:
        lines.insert(1, "Host: localhost")
    if not measured and (body is not None or method in ("POST", "PUT", "PATCH")):
        lines.append(f"Content-Length: {len(body or b'')}")
    lines.append("\r\n")
    return "\r\n".join(lines).encode("latin-1") + (body or b"")


def head_of(piece: bytes) -> tuple[int, dict[str, str], int, int] | None:
    """Status, headers, where the body begins and its length; None if anything is not as the daemon writes it."""
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
