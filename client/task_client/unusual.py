"""Answers that are not as the daemon writes them: read by the standard library, from the bytes that have come already."""

import http.client
import io
import socket
from typing import Any, cast

from task_client.transport import Answer


def read(begun: bytes, connection: socket.socket, method: str) -> tuple[Answer, bool]:
    """The answer to a request of this method, and whether another may be sent on the connection. Raises OSError."""
    source = _Begun(begun, connection)
    response = http.client.HTTPResponse(cast(socket.socket, source), method=method)
    try:
        response.begin()
        if source.ended:  # which http.client takes for the end of the headers
            raise ConnectionResetError("it was closed before the end of the answer's head")
        body = response.read()
    except http.client.HTTPException as error:
        raise ConnectionError(f"it cannot be understood: {error!r}") from error
    finally:
        response.close()
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Answer(response.status, headers, body), not response.will_close


class _Begun(io.RawIOBase):
    """First what was read already, then what comes. Closing it leaves the connection open."""

    def __init__(self, begun: bytes, connection: socket.socket) -> None:
        self._begun = memoryview(begun)
        self._connection = connection
        self.ended = False

    def makefile(self, *_: Any) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._begun:
            count = self._connection.recv_into(buffer)
            self.ended = count == 0
            return count
        count = min(len(buffer), len(self._begun))
        buffer[:count], self._begun = self._begun[:count], self._begun[count:]
        return count
