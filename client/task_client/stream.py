"""The daemon's events as a stream: a connection of its own that is opened again whenever it ends."""

import http.client
import json
import math
import time
from collections.abc import Callable, Iterator

from task_client.calls import Outage, refusal_of
from task_client.errors import AnswerUnknown, DaemonUnreachable
from task_client.transport import Answer
from task_client.types import Event
from task_client.unix import open_unix

AGAIN = 0.1  # seconds from the end of a stream to the next
SILENCE = 50.0  # seconds; the daemon gives a sign of life every 15


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=SILENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = open_unix(self._path, SILENCE)


def follow(unix_socket: str, target: str, after: int, sleep: Callable[[float], None] = time.sleep) -> Iterator[Event]:
    """Events above `after`, for ever, without a gap, across restarts of the daemon; progress has no `seq`.

    Raises RequestRefused (`cursor-expired` when events after the last one seen are not kept any more), DaemonUnreachable for
    what waiting does not help against.
    """
    while True:
        connection = _Connection(unix_socket)
        try:
            blocks = Blocks()
            for line in _lines(_opened(connection, target, after, sleep)):
                seq, event = blocks.read(line) or (0, None)
                after = max(after, seq)
                if event is not None:
                    yield event
        finally:
            connection.close()
        sleep(AGAIN)


def _opened(connection: _Connection, target: str, after: int, sleep: Callable[[float], None]) -> http.client.HTTPResponse:
    """A stream that has begun; whatever passes by itself is waited for."""
    outage = Outage(math.inf, patient=True)
    while True:
        try:
            answer = _asked(connection, target, after)
            if answer.status == 200:
                outage.over()
                return answer
            refusal = refusal_of(Answer(answer.status, _headers(answer), answer.read()))
            assert refusal is not None
            pause = outage.after_refusal(refusal, harmless=True)
        except (DaemonUnreachable, AnswerUnknown) as error:
            pause = outage.after_break(error, harmless=True)
        connection.close()
        sleep(pause)


def _asked(connection: _Connection, target: str, after: int) -> http.client.HTTPResponse:
    try:
        connection.request("GET", target, headers={"Accept": "text/event-stream", "Last-Event-ID": str(after)})
        return connection.getresponse()
    except DaemonUnreachable:
        raise
    except (OSError, http.client.HTTPException) as error:
        raise AnswerUnknown(f"cannot follow the events: the connection broke: {error}") from error


def _headers(answer: http.client.HTTPResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in answer.getheaders()}


def _lines(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    """Up to the end of the connection, however it ends."""
    try:
        yield from answer
    except (OSError, http.client.HTTPException):
        return


class Blocks:
    """Reads a stream line by line."""

    def __init__(self) -> None:
        self._seq, self._data = 0, ""

    def read(self, line: bytes) -> tuple[int, Event | None] | None:
        """The id (0 without one) and the event, if any, of the block that ends with this line; None before its end."""
        name, _, value = line.decode().rstrip("\r\n").partition(": ")
        if name == "id":
            self._seq = int(value)
        elif name == "data":
            self._data = value
        elif not name:
            seq, data = self._seq, self._data
            self._seq, self._data = 0, ""
            return seq, Event.read(json.loads(data)) if data else None
        return None
