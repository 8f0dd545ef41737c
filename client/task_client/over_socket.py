"""The default transport: the standard library's HTTP over kept connections to the Unix socket.

It takes a fraction of the time that requests takes for a call and to be imported (`benchmarks/p05_clients.py` has figures).
"""

import http.client
import os
import select
import socket
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from task_client.errors import AnswerUnknown
from task_client.transport import Answer
from task_client.unix import open_unix

KEPT = 8  # idle connections kept for threads to share
_BROKEN = (OSError, http.client.HTTPException)


class _Connection(http.client.HTTPConnection):
    auto_open = 0  # one that was lost is not opened again behind our back

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self.sock: socket.socket = open_unix(path, timeout)
        self._pieces: list[bytes] = []
        self._poll = select.poll()
        self._poll.register(self.sock.fileno(), select.POLLIN)

    def send(self, data: Any) -> None:
        """Head and body go out together, in one piece, by `flush`."""
        self._pieces.append(data)

    def flush(self) -> None:
        pieces, self._pieces = self._pieces, []
        self.sock.sendall(b"".join(pieces))

    def is_idle(self) -> bool:
        """Nothing is there to be read: the daemon has neither closed it nor said anything that nobody asked for."""
        return not self._poll.poll(0)


class SocketTransport:
    """`Transport` over the standard library: idle connections are shared between threads, and left behind after a fork."""

    def __init__(self, unix_socket: str) -> None:
        self.unix_socket = unix_socket
        self._idle: deque[_Connection] = deque()  # its methods are atomic; a lock might be held at a fork
        self._pid = os.getpid()

    def request(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | None = None, timeout: float = 30.0
    ) -> Answer:
        connection = self._connected(timeout)
        try:
            # A refusal may have come before the whole body was sent, and then the answer is there to be read; if it is not,
            # getresponse() fails in its turn.
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, target, body, dict(headers))
                connection.flush()
            response = connection.getresponse()
            content = response.read()
        except TimeoutError as error:
            connection.close()
            raise AnswerUnknown(
                f"cannot tell whether {method} {target} was carried out: no answer within {timeout:g} s"
            ) from error
        except _BROKEN as error:
            connection.close()
            raise AnswerUnknown(
                f"cannot tell whether {method} {target} was carried out: the connection broke: {error}"
            ) from error
        except BaseException:
            connection.close()
            raise
        if response.will_close or len(self._idle) >= KEPT:
            connection.close()
        else:
            self._idle.append(connection)
        return Answer(response.status, {name.lower(): value for name, value in response.headers.items()}, content)

    def close(self) -> None:
        with suppress(IndexError):
            while True:
                self._idle.pop().close()

    def __del__(self) -> None:
        self.close()  # the old client of `legacy` has no way to say that it is done with

    def _connected(self, timeout: float) -> _Connection:
        """A connection on which nothing was sent yet since the last answer. Raises DaemonUnreachable."""
        if self._pid != os.getpid():  # parent and child must not read from one connection
            self.close()
            self._pid = os.getpid()
        with suppress(IndexError):
            while True:
                connection = self._idle.pop()
                if connection.is_idle():
                    connection.sock.settimeout(timeout)
                    return connection
                connection.close()
        return _Connection(self.unix_socket, timeout)
