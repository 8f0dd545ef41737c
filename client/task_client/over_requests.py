"""A transport over requests with the Unix-socket adapter, its traps removed, for callers who want its hooks and sessions.

The stock adapter keeps a pool for each URL (six URLs leave six idle connections), waits for ever unless told otherwise,
and reports a missing socket as if the answer had been lost (measured with requests-unixsocket 0.4.1, requests 2.34).
"""

import os
import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import requests
import requests_unixsocket.adapters
import urllib3
import urllib3.connection
from urllib3.exceptions import NewConnectionError

from task_client.errors import AnswerUnknown, DaemonUnreachable
from task_client.transport import Answer
from task_client.unix import SCHEME, open_unix, socket_url, split_socket_url

KEPT = 8  # idle connections kept for threads to share


class _Connection(urllib3.connection.HTTPConnection):
    def __init__(self, *args: Any, socket_path: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._socket_path = socket_path

    def connect(self) -> None:
        """NewConnectionError is what tells urllib3 and requests that nothing was sent."""
        seconds = self.timeout if isinstance(self.timeout, (int, float)) else None
        try:
            self.sock = open_unix(self._socket_path, seconds)
        except DaemonUnreachable as error:
            raise NewConnectionError(self, str(error)) from error


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class SocketAdapter(requests_unixsocket.adapters.UnixAdapter):  # type: ignore[misc]  # the library has no types
    """One pool for each socket, whatever the rest of the URL."""

    def get_connection(self, url: str, proxies: Mapping[str, str] | None = None) -> urllib3.HTTPConnectionPool:
        del proxies  # none stands before a Unix socket
        key = urlsplit(url).netloc
        with self.pools.lock:
            pool: urllib3.HTTPConnectionPool | None = self.pools.get(key)
            if pool is None:
                pool = _Pool("localhost", maxsize=KEPT, socket_path=split_socket_url(url)[0])
                self.pools[key] = pool
        return pool


class RequestsTransport:
    """`Transport` over requests: notices dropped idle connections before using them, and shares them between threads."""

    def __init__(self, unix_socket: str) -> None:
        self.unix_socket = unix_socket
        self._lock = threading.Lock()
        self._session: requests.Session | None = None
        self._pid = 0

    def request(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | None = None, timeout: float = 30.0
    ) -> Answer:
        url = socket_url(self.unix_socket, target)
        try:
            found = self._live().request(
                method, url, headers=dict(headers), data=body, timeout=(timeout, timeout), allow_redirects=False
            )
        except requests.Timeout as error:
            raise AnswerUnknown(
                f"cannot tell whether {method} {target} was carried out: no answer within {timeout:g} s"
            ) from error
        except requests.RequestException as error:
            unreachable = _not_sent(error)
            if unreachable is not None:
                raise unreachable from None
            raise AnswerUnknown(
                f"cannot tell whether {method} {target} was carried out: the connection broke: {error}"
            ) from error
        return Answer(found.status_code, {name.lower(): value for name, value in found.headers.items()}, found.content)

    def close(self) -> None:
        with self._lock:
            if self._session is not None:
                self._session.close()
            self._session = None

    def _live(self) -> requests.Session:
        """The session of this process: after a fork, parent and child must not read from one connection."""
        with self._lock:
            if self._session is None or self._pid != os.getpid():
                self._session = requests.Session()
                self._session.trust_env = False  # no proxies, and a third less CPU a call: no look at netrc and environment
                self._session.mount(f"{SCHEME}://", SocketAdapter())
                self._pid = os.getpid()
            return self._session


def _not_sent(error: requests.RequestException) -> DaemonUnreachable | None:
    reason = getattr(error.args[0], "reason", None) if error.args else None
    cause = reason.__cause__ if isinstance(reason, NewConnectionError) else None
    return cause if isinstance(cause, DaemonUnreachable) else None
