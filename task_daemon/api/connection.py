"""One connection: the hot requests are answered here, all others by Tornado; whoever is too slow is cut off."""

import asyncio
import logging
import math
import re
import time
from collections.abc import Callable
from typing import Any

from tornado.concurrent import future_set_result_unless_cancelled
from tornado.http1connection import HTTP1Connection, HTTP1ConnectionParameters, HTTP1ServerConnection
from tornado.httputil import HTTPServerConnectionDelegate
from tornado.ioloop import IOLoop
from tornado.iostream import IOStream, StreamClosedError, UnsatisfiableReadError

from task_daemon.api.access import Caller
from task_daemon.api.hot import Hot, Request
from task_daemon.core.prompt import Prompt

log = logging.getLogger("task_daemon.api")

END_OF_HEAD = re.compile(rb"\n\r?\n")  # ends where Tornado's \r?\n\r?\n ends, and is found in a quarter of the time
PIECE = 16 * 1024  # bytes to ask for at a time, fewer than a header block may have; Tornado fills its 64 KiB with zeros first
NEVER = math.inf


class Stream(IOStream):
    """A connection's bytes. It is cut when its client does not read: until then the answer takes up memory."""

    def __init__(self, *arguments: object, answer_timeout: float, body_after: Callable[[bytes], int], **named: object) -> None:
        """`body_after` a header block: how many bytes that follow it are wanted with it."""
        super().__init__(*arguments, read_chunk_size=PIECE, **named)  # type: ignore[arg-type]
        self._answer_timeout = answer_timeout
        self._body_after = body_after
        self._deadline: object = None
        self._head: bytes | None = None
        self._head_size = 0

    async def read_head(self, most: int) -> tuple[bytes, bytes]:
        """A header block of at most so many bytes, with the body that is wanted with it if all of that is here already, too.

        What is read at once costs one turn of the loop, and the kernel need not be told to listen for more in between.
        """
        if self._read_buffer_size or self._state is None:  # something is left over, or may have come before it was accepted
            reading = super().read_until_regex(END_OF_HEAD, most)  # type: ignore[arg-type]
            if reading.done():  # type: ignore[attr-defined]
                await asyncio.sleep(0)  # the next request is here already, and others want their turn
            else:
                self._read_future = reading = Prompt()  # instead of Tornado's, so that what has come is looked at at once
        else:  # as `read_until_regex` leaves it
            if self.closed():
                self._check_closed()  # raises what was wrong
            self._read_regex, self._read_max_bytes = END_OF_HEAD, most
            self._read_future = reading = Prompt()
            if not self._state & IOLoop.READ:
                self._add_io_state(IOLoop.READ)
        found = await reading
        return found[: self._head_size], found[self._head_size :]

    def _handle_events(self, fd: Any, events: int) -> None:
        """A request that is awaited and comes in one piece, and alone, does not go through the buffer; all else is Tornado's."""
        reading = self._read_future
        if reading is not None and self._read_regex is END_OF_HEAD and not self._read_buffer_size and events == IOLoop.READ:
            try:
                came = self.socket.recv(PIECE)
            except OSError:
                came = b""  # Tornado finds out why
            end = END_OF_HEAD.search(came)
            if end is not None and self._wanted(came[: end.end()]) == len(came):
                self._read_future = self._read_regex = None
                future_set_result_unless_cancelled(reading, came)
                return
            self._read_buffer += came
            self._read_buffer_size += len(came)
        super()._handle_events(fd, events)

    def _find_read_pos(self) -> int | None:
        end = super()._find_read_pos()
        if end is not None and self._read_regex is not None:
            wanted = self._wanted(bytes(self._read_buffer[:end]))
            if wanted <= self._read_buffer_size:
                return wanted
        return end

    def _wanted(self, head: bytes) -> int:
        """How many bytes the header block has with the body that is wanted with it."""
        self._head_size = len(head)
        return len(head) + self._body_after(head)

    def give_back(self, head: bytes, body: bytes) -> None:
        """The header block is what the next `read_until_regex` finds, the body what is read after it."""
        self._head = head
        self._read_buffer[:0] = body
        self._read_buffer_size += len(body)

    def read_until_regex(self, regex: bytes, max_bytes: int | None = None) -> "asyncio.Future[bytes]":
        assert self._head is not None, f"nothing was given back in which to find {regex!r} ({max_bytes})"
        known: asyncio.Future[bytes] = asyncio.Future()
        known.set_result(self._head)
        self._head = None
        return known

    def send(self, data: bytes) -> None:
        """Write without a future for the end of it. Raises StreamClosedError."""
        if self.closed():
            raise StreamClosedError
        if not self.writing():
            try:
                sent = self.socket.send(data)
            except OSError:
                sent = 0  # `write` finds out why
            if sent == len(data):
                return
            data = data[sent:]
        self.write(data)

    def write(self, data: bytes | memoryview) -> "asyncio.Future[None]":
        written = super().write(data)
        if self._deadline is None and self.writing():
            self._deadline = IOLoop.current().call_later(self._answer_timeout, self._cut)
        if self._deadline is not None:
            written.add_done_callback(self._progress)
        return written

    def _progress(self, _: "asyncio.Future[None]") -> None:
        if self._deadline is not None and not self.writing():
            IOLoop.current().remove_timeout(self._deadline)
            self._deadline = None

    def _cut(self) -> None:
        log.warning("cut a connection off: its client did not read an answer within %.0f s", self._answer_timeout)
        self._deadline = None
        self.close()


class Connection(HTTP1ServerConnection):
    """Tornado's loop over the requests of a connection, with a look at each header block before Tornado's.

    `deadline` (of `time.monotonic`): when whoever owns the connections closes this one unless the bytes that it waits for
    have come; one look at all of them now and then costs less than a timer for each request.
    """

    stream: Stream

    def __init__(self, stream: Stream, params: HTTP1ConnectionParameters, context: object, hot: Hot) -> None:
        super().__init__(stream, params, context)
        self.deadline = NEVER
        self._hot = hot
        self._answering = False

    async def close(self) -> None:
        if self._answering and self._serving_future is not None:
            self._serving_future.cancel()  # nobody is left to be answered
        await super().close()

    async def _server_request_loop(self, delegate: HTTPServerConnectionDelegate) -> None:
        idle, most = self.params.header_timeout or NEVER, self.params.max_header_size
        try:
            caller = self._hot.api.access.caller(self.stream)
            while True:
                self.deadline = time.monotonic() + idle
                head, body = await self.stream.read_head(most)
                request = self._hot.request(head, caller)
                if request is not None:
                    await self._answer_hot(request, caller, body)
                    continue
                self.deadline = NEVER
                self.stream.give_back(head, body)
                connection = HTTP1Connection(self.stream, False, self.params, self.context)
                if not await connection.read_response(delegate.start_request(self, connection)):
                    return
                await asyncio.sleep(0)
        except (StreamClosedError, UnsatisfiableReadError, asyncio.CancelledError):
            return
        except Exception:
            log.exception("cannot serve a connection any more")
            self.stream.close()
        finally:
            delegate.on_close(self)

    async def _answer_hot(self, request: Request, caller: Caller, body: bytes) -> None:
        api = self._hot.api
        api.begin()
        try:
            began = time.perf_counter()
            if len(body) < request.length:
                self.deadline = time.monotonic() + (self.params.body_timeout or NEVER)
                body = await self.stream.read_bytes(request.length)
            self.deadline = NEVER
            self._answering = True
            await self._hot.answer(request, caller, body, began, self.stream.send)
        finally:
            self._answering = False
            api.end()
