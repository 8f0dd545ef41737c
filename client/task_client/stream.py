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
            for seq, data in _blocks(_opened(connection, target, after, sleep)):
                after = max(after, seq)
                if data:
                    yield Event.read(json.loads(data))
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


def _blocks(answer: http.client.HTTPResponse) -> Iterator[tuple[int, str]]:
    """The id (0 without one) and the data of each block, up to the end of the connection, however it ends. One that is not
    complete counts for nothing."""
    seq, data = 0, ""
    try:
        for raw in answer:
            name, _, value = raw.decode().rstrip("\r\n").partition(": ")
            if name == "id":
                seq = int(value)
            elif name == "data":
                data = value
            elif not name:
                yield seq, data
                seq, data = 0, ""
    except (OSError, http.client.HTTPException):
        return
