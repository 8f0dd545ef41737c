"""One kept HTTP/1.1 connection; answers that are not of the usual kind are for `unusual.py`."""

import asyncio
import socket
import struct
from typing import TYPE_CHECKING, cast

from task_daemon.callbacks.message import ANSWER_LIMIT, NotHttp, Response, usual

if TYPE_CHECKING:
    from task_daemon.callbacks.unusual import Unusual

NOBODY = -1  # the uid in SO_PEERCRED of a socket without a peer
PIECE = 8192  # bytes that are read at a time


class Dropped(ConnectionError):
    """The connection ended before a single byte of the answer came."""


class Link(asyncio.BufferedProtocol):
    """One connection, with at most one request on it at a time. It reads into a buffer of its own: asyncio would allocate 256 KiB
    for each answer."""

    def __init__(self, lane: str, loop: asyncio.AbstractEventLoop) -> None:
        self.usable = True
        self.idle_since = 0.0  # the loop's time
        self.lane = lane
        self._loop = loop
        self._buffer = bytearray(PIECE)
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[Response] | None = None
        self._method = ""
        self._data = b""  # of an answer that may still be a usual one
        self._unusual: Unusual | None = None
        self._heard = False
        self._peer: int | None = None

    def exchange(self, method: str, request: bytes) -> asyncio.Future[Response]:
        """Send a whole request; the answer. Raises Dropped when the connection ends before the answer begins, OSError when the
        answer is not a whole one."""
        if not self.usable or self._transport is None:
            raise Dropped(f"cannot send to {self.lane}: the connection is closed")
        self._method, self._data, self._unusual, self._heard = method, b"", None, False
        self._waiter = self._loop.create_future()
        self._transport.write(request)
        return self._waiter

    def give_up(self, error: OSError) -> None:
        """Nobody waits for the answer any longer: whoever did gets the error."""
        self._fail(error)

    def close(self) -> None:
        self.usable = False
        if self._transport is not None:
            self._transport.abort()  # nothing of ours is unsent, and a TLS farewell could take half a minute

    def peer_uid(self) -> int:
        """Who listens on the other side of a Unix socket, as the kernel noted when it began to listen. Raises ConnectionError."""
        if self._peer is not None:
            return self._peer
        assert self._transport is not None
        credentials = self._transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        uid = int(struct.unpack("3i", credentials)[1])
        if uid == NOBODY:
            # A full queue answers EAGAIN, which asyncio takes for a connection under way and then for a made one.
            raise ConnectionError(f"cannot connect to {self.lane}: its queue of connections is full")
        self._peer = uid
        return uid

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.close()
        if not self._heard:
            self._fail(Dropped(f"cannot get an answer from {self.lane}: it closed the connection"))
        elif exc is not None:
            self._fail(ConnectionError(f"cannot read the answer of {self.lane}: {exc}"))
        else:
            self._fail(ConnectionError(f"cannot read the answer of {self.lane}: it closed the connection half-way"))

    def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002 - asyncio's signature
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        data = bytes(memoryview(self._buffer)[:nbytes])
        if self._waiter is None or self._waiter.done():
            self.close()  # it speaks without being asked: the next answer could not be told from this
            return
        self._heard = True
        if self._unusual is None:
            self._data = self._data + data if self._data else data
            answer = usual(self._data, ANSWER_LIMIT)
            if isinstance(answer, Response):
                self._waiter.set_result(answer)
                return
            if answer:
                return
            data = self._data
        self._feed(data)

    def eof_received(self) -> None:
        if self._heard and self._waiter is not None and not self._waiter.done():
            if self._unusual is None:
                self._feed(self._data)
            self._feed(b"")  # the end of a body without a length

    def _feed(self, data: bytes) -> None:
        assert self._waiter is not None
        if self._waiter.done():
            return
        try:
            if self._unusual is None:
                from task_daemon.callbacks.unusual import Unusual  # whose library most daemons never need

                self._unusual = Unusual(self._method)
            answer = self._unusual.feed(data)
        except NotHttp as error:
            self._fail(ConnectionError(f"cannot read the answer of {self.lane}: it is not HTTP/1.1 ({error})"))
            return
        if answer is not None:
            self._waiter.set_result(answer)
            if not self._unusual.keep:
                self.close()

    def _fail(self, error: OSError) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)
        self.close()
