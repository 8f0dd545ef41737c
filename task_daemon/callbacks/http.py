"""A small HTTP/1.1 client that keeps its connections.

It follows no redirects and reads no proxy settings. Tornado's own client opens a connection for each request, which costs
four times the CPU; that is why this exists (benchmarks compare them).
"""

import asyncio
import os
import socket
import ssl
from collections.abc import Callable, Iterable
from email.utils import parsedate_to_datetime

from task_daemon.callbacks.link import Dropped, Link
from task_daemon.callbacks.message import Response
from task_daemon.callbacks.target import Target
from task_daemon.core.ports import Answer

IDLE_PER_TARGET = 4
IDLE_SECONDS = 30.0

Permit = Callable[[str, Iterable[str]], None]
"""Called with a host and all its addresses before a connection is made; raises Unsendable."""
PeerCheck = Callable[[int], None]
"""Called with the uid of a Unix socket's receiver before anything is sent to it; raises Unsendable."""


class HttpClient:
    """Sends requests over kept connections: at most `IDLE_PER_TARGET` idle ones for a target, none longer than
    `idle_seconds`. Belongs to one event loop. Times in seconds; `timeout` bounds a request as a whole."""

    def __init__(
        self,
        connect_timeout: float = 2.0,
        timeout: float = 10.0,
        permit: Permit | None = None,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        self._connect_timeout = connect_timeout
        self._timeout = timeout
        self._permit = permit
        self._idle_seconds = idle_seconds
        self._idle: dict[str, list[Link]] = {}
        self._sweep: asyncio.TimerHandle | None = None
        self._asked: dict[Link, float] = {}  # kept connections with a request on them, by when they must have answered
        self._watch: asyncio.TimerHandle | None = None
        self._tls: ssl.SSLContext | None = None
        self._closed = False

    async def request(
        self,
        target: Target,
        method: str,
        request: bytes,
        *,
        now: float,
        peer_check: PeerCheck | None = None,
    ) -> Answer:
        """Send one request (`message.encoded`) and read the answer. `now` is wall time: a Retry-After may be a date.

        Raises OSError or TimeoutError when there is no good answer, Unsendable when `permit` or `peer_check` does.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        response = None
        kept = self._take(target.lane)
        if kept is not None:
            try:
                self._asked[kept] = began + self._timeout
                if self._watch is None:
                    self._watch = loop.call_at(began + self._timeout, self._look_at_asked)
                response = await self._use(kept, method, request, peer_check)
            except Dropped:
                # The receiver closed it while it was idle. Sending once more is safe even if the request was read:
                # deliveries are at least once, with an id that stays the same.
                pass
            finally:
                self._asked.pop(kept, None)
        if response is None:
            response = await self._afresh(target, method, request, peer_check, began + self._timeout)
        after = response.retry_after
        return Answer(
            response.status,
            loop.time() - began,
            response.body.decode("utf-8", "replace"),
            None if after is None else _seconds(after, now),
        )

    async def close(self) -> None:
        """Close the idle connections and keep none from now on; requests in flight go on."""
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        idle, self._idle = self._idle, {}
        for links in idle.values():
            for link in links:
                link.close()
        await asyncio.sleep(0)  # transports say goodbye in the loop's next turn

    async def _afresh(
        self, target: Target, method: str, request: bytes, peer_check: PeerCheck | None, deadline: float
    ) -> Response:
        """On a new connection; `deadline` in the loop's time."""
        limit = asyncio.timeout_at(deadline)
        try:
            async with limit:
                return await self._use(await self._connect(target), method, request, peer_check)
        except TimeoutError:
            if limit.expired():
                raise self._no_answer(target.lane) from None
            raise

    async def _use(self, link: Link, method: str, request: bytes, peer_check: PeerCheck | None) -> Response:
        try:
            if peer_check is not None:
                peer_check(link.peer_uid())
            answer = await link.exchange(method, request)
        except BaseException:
            link.close()
            raise
        if link.usable:
            self._keep(link)
        return answer

    def _no_answer(self, lane: str) -> TimeoutError:
        return TimeoutError(f"cannot get an answer from {lane}: none within {self._timeout:g} s")

    def _look_at_asked(self) -> None:
        """One timer for all kept connections, because nearly every answer comes long before its time is over."""
        loop = asyncio.get_running_loop()
        now, self._watch = loop.time(), None
        for link, deadline in list(self._asked.items()):
            if deadline > now:  # and so are those of all after it
                self._watch = loop.call_at(deadline, self._look_at_asked)
                break
            link.give_up(self._no_answer(link.lane))

    # ---- idle connections

    def _take(self, lane: str) -> Link | None:
        links = self._idle.get(lane)
        while links:
            link = links.pop()
            if link.usable:
                return link
        return None

    def _keep(self, link: Link) -> None:
        links = self._idle.get(link.lane)
        if links is None:
            links = self._idle[link.lane] = []
        elif len(links) >= IDLE_PER_TARGET:
            links[:] = [other for other in links if other.usable]
        if self._closed or len(links) >= IDLE_PER_TARGET:
            link.close()
            return
        loop = asyncio.get_running_loop()
        link.idle_since = loop.time()
        links.append(link)
        if self._sweep is None:
            self._sweep = loop.call_at(link.idle_since + self._idle_seconds, self._close_idle)

    def _close_idle(self) -> None:
        """Connections nobody has used for `idle_seconds`, and those that receivers have closed."""
        loop = asyncio.get_running_loop()
        now, self._sweep = loop.time(), None
        for lane, links in list(self._idle.items()):
            for link in links:
                if now - link.idle_since >= self._idle_seconds:
                    link.close()
            links[:] = [link for link in links if link.usable]
            if not links:
                del self._idle[lane]
        oldest = min((link.idle_since for links in self._idle.values() for link in links), default=None)
        if oldest is not None:
            self._sweep = loop.call_at(oldest + self._idle_seconds, self._close_idle)

    async def _connect(self, target: Target) -> Link:
        limit = asyncio.timeout(self._connect_timeout)
        try:
            async with limit:
                return await self._open(target)
        except OSError as error:
            if limit.expired():
                text = f"cannot connect to {target.lane}: no connection within {self._connect_timeout:g} s"
                raise TimeoutError(text) from None
            raise ConnectionError(
                f"cannot connect to {target.lane}: {error.strerror or str(error) or type(error).__name__}"
            ) from error

    async def _open(self, target: Target) -> Link:
        loop = asyncio.get_running_loop()
        if target.socket:
            _, link = await loop.create_unix_connection(lambda: Link(target.lane, loop), os.fsdecode(target.socket))
            return link
        found = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(info[4][0]) for info in found))
        if self._permit is not None:
            self._permit(target.host, addresses)
        if target.tls and self._tls is None:
            self._tls = await asyncio.to_thread(ssl.create_default_context)  # reads hundreds of certificates
        failure: OSError = ConnectionError("the name has no address")
        for address in addresses:
            # The address that was looked at, not the name: the name may have another one by now.
            try:
                _, link = await loop.create_connection(
                    lambda: Link(target.lane, loop),
                    address,
                    target.port,
                    ssl=self._tls if target.tls else None,
                    server_hostname=target.host if target.tls else None,
                )
            except OSError as error:
                failure = error
            else:
                return link
        raise failure


def _seconds(retry_after: str, now: float) -> float | None:
    """Seconds until the receiver wants to be asked again; None when that cannot be understood."""
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - now)
    except (ValueError, OverflowError):
        return None
