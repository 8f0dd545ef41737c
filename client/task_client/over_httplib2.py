"""A transport over httplib2, for callers who have it anyway; also what old callers' own httplib2 code needs.

Importing this module teaches httplib2 the scheme `http+unix` for the whole process. Plain `httplib2.Http` writes the
authority of a URL in lower case and refuses more than 63 characters without a dot (it treats it as a host name), so only
lower-case, short socket paths work with it; `UnixHttp` takes any.
"""

import hashlib
import http.client
import os
import select
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import unquote

import httplib2

from task_client.errors import AnswerUnknown, DaemonUnreachable
from task_client.transport import Answer
from task_client.unix import SCHEME, open_unix, socket_url, split_socket_url

_BROKEN = (OSError, http.client.HTTPException, httplib2.HttpLib2Error)


class HttpUnixConnection(httplib2.HTTPConnectionWithTimeout):
    """HTTP over AF_UNIX with a time-out, for httplib2.

    The socket is `socket_path` of a subclass, else the percent-decoded host. httplib2 sends a request again when the
    server closes without an answer (measured with 0.32: a handler ran twice for one POST, whatever `RETRIES` says); here
    it does not, because that end is reported as a plain OSError.
    """

    socket_path: str | None = None

    def __init__(self, host: str, port: int | None = None, timeout: float | None = None, proxy_info: Any = None) -> None:
        del proxy_info  # httplib2 hands one to every connection; no proxy stands before a Unix socket
        super().__init__("localhost", port, timeout=timeout, proxy_info=None)
        self._path = self.socket_path or unquote(host)

    def connect(self) -> None:
        self.sock = open_unix(self._path, self.timeout if httplib2.has_timeout(self.timeout) else None)

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is not None:
            if _readable(self.sock.fileno()):
                self.close()  # the server let go of this idle connection; nothing was sent on it yet
            else:
                self.sock.settimeout(self.timeout)
        # A refusal may have come before the whole body was sent, and then the answer is there to be read; if it is not,
        # getresponse() fails in its turn.
        with suppress(BrokenPipeError, ConnectionResetError):
            super().request(*args, **kwargs)

    def getresponse(self) -> http.client.HTTPResponse:
        try:
            return super().getresponse()
        except http.client.BadStatusLine as error:
            self.close()
            raise ConnectionError("the daemon closed the connection without an answer") from error


def _readable(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


_SCHEMES: dict[str, type[http.client.HTTPConnection]] = httplib2.SCHEME_TO_CONNECTION  # type: ignore[assignment]
_SCHEMES[SCHEME] = HttpUnixConnection


class UnixHttp(httplib2.Http):
    """An `httplib2.Http` that takes `http+unix` URLs of any case and length. Not safe for two threads, like its base."""

    def __init__(self, timeout: float | None = 30.0) -> None:
        super().__init__(timeout=timeout, proxy_info=None)
        self.follow_redirects = False

    def request(
        self,
        uri: str,
        method: str = "GET",
        body: Any = None,
        headers: Any = None,
        redirections: int = 0,
        connection_type: Any = None,
    ) -> tuple[httplib2.Response, bytes]:
        """Like the base. The socket path goes round httplib2's handling of host names, in the connection class."""
        if uri.startswith(f"{SCHEME}://"):
            path, target = split_socket_url(uri)
            host = hashlib.sha256(os.fsencode(path)).hexdigest()[:32]  # connections are kept by host
            connection_type = type("BoundHttpUnixConnection", (HttpUnixConnection,), {"socket_path": path})
            uri = f"http://{host}{target}"
        answer: tuple[httplib2.Response, bytes] = super().request(uri, method, body, headers, redirections, connection_type)
        return answer


class Httplib2Transport:
    """`Transport` over httplib2, one connection for each thread."""

    def __init__(self, unix_socket: str) -> None:
        self.unix_socket = unix_socket
        self._local = threading.local()

    def request(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | None = None, timeout: float = 30.0
    ) -> Answer:
        http = self._live()
        http.timeout = timeout
        for connection in http.connections.values():
            connection.timeout = timeout
        try:
            response, content = http.request(socket_url(self.unix_socket, target), method, body, dict(headers))
        except DaemonUnreachable:
            self.close()
            raise
        except TimeoutError as error:
            self.close()
            raise AnswerUnknown(
                f"cannot tell whether {method} {target} was carried out: no answer within {timeout:g} s"
            ) from error
        except _BROKEN as error:
            self.close()
            raise AnswerUnknown(
                f"cannot tell whether {method} {target} was carried out: the connection broke: {error}"
            ) from error
        return Answer(response.status, {name.lower(): str(value) for name, value in response.items()}, content)

    def close(self) -> None:
        """Close the connection of the calling thread."""
        http: UnixHttp | None = getattr(self._local, "http", None)
        if http is not None:
            http.close()
            self._local.http = None

    def _live(self) -> UnixHttp:
        """The connection of this thread in this process: after a fork, parent and child must not share one."""
        http: UnixHttp | None = getattr(self._local, "http", None)
        if http is None or self._local.pid != os.getpid():
            http = self._local.http = UnixHttp()
            self._local.pid = os.getpid()
        return http
