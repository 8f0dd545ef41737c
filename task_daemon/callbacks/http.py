"""A small HTTP/1.1 client that keeps its connections.

It follows no redirects and reads no proxy settings. Tornado's own client opens a connection for each request, which costs
four times the CPU; that is why this exists (benchmarks compare them).
"""

import asyncio
import os
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping
from email.utils import parsedate_to_datetime

from task_daemon.callbacks.link import Dropped, Link
from task_daemon.callbacks.message import Response, encoded
from task_daemon.callbacks.target import Target
from task_daemon.core.ports import Answer, Unsendable

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
        self._tls: ssl.SSLContext | None = None
        self._closed = False

    async def request(
        self,
        target: Target,
        method: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        now: float,
        peer_check: PeerCheck | None = None,
    ) -> Answer:
        """Send one request and read the answer. `now` is wall time: a Retry-After may be a date.

        Raises OSError or TimeoutError when there is no good answer, Unsendable when `permit` or `peer_check` does or
        when the request is not valid HTTP.
        """
        began = asyncio.get_running_loop().time()
        try:
            request = encoded(method, target.path, {"Host": target.authority, **headers}, body)
        except ValueError as error:  # its text holds nothing that may be a secret
            raise Unsendable(f"cannot send to {target.lane}: {error}") from None
        limit = asyncio.timeout(self._timeout)
        try:
            async with limit:
                response = await self._exchange(target, method, request, peer_check)
        except TimeoutError:
            if not limit.expired():
                raise
            raise TimeoutError(f"cannot get an answer from {target.lane}: none within {self._timeout:g} s") from None
        return Answer(
            status=response.status,
            seconds=asyncio.get_running_loop().time() - began,
            body=response.body.decode("utf-8", "replace"),
            retry_after=None if response.retry_after is None else _seconds(response.retry_after, now),
        )

    async def close(self) -> None:
        """Close the idle connections and keep none from now on; requests in flight go on."""
        self._closed = True
        idle, self._idle = self._idle, {}
        for links in idle.values():
            for link in links:
                link.close()
        await asyncio.sleep(0)  # transports say goodbye in the loop's next turn

    async def _exchange(self, target: Target, method: str, request: bytes, peer_check: PeerCheck | None) -> Response:
        kept = self._take(target.lane)
        if kept is not None:
            try:
                return await self._use(kept, target.lane, method, request, peer_check)
            except Dropped:
                # The receiver closed it while it was idle. Sending once more is safe even if the request was read:
                # deliveries are at least once, with an id that stays the same.
                kept.close()
        return await self._use(await self._connect(target), target.lane, method, request, peer_check)

    async def _use(self, link: Link, lane: str, method: str, request: bytes, peer_check: PeerCheck | None) -> Response:
        try:
            if peer_check is not None:
                peer_check(link.peer_uid())
            answer = await link.exchange(method, request)
        except BaseException:
            link.close()
            raise
        self._keep(lane, link)
        return answer

    def _take(self, lane: str) -> Link | None:
        links = self._idle.get(lane, [])
        while links:
            link = links.pop()
            link.busy()
            if link.usable:
                return link
        self._idle.pop(lane, None)
        return None

    def _keep(self, lane: str, link: Link) -> None:
        if not link.usable:
            return
        links = self._idle.setdefault(lane, [])
        if self._closed or len(links) >= IDLE_PER_TARGET:
            link.close()
            return
        links.append(link)
        link.rest(self._idle_seconds, lambda: self._forget(lane, link))

    def _forget(self, lane: str, link: Link) -> None:
        links = self._idle.get(lane, [])
        if link in links:
            links.remove(link)
        if not links:
            self._idle.pop(lane, None)

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
            _, link = await loop.create_unix_connection(lambda: Link(target.lane), os.fsdecode(target.socket))
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
                    lambda: Link(target.lane),
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
