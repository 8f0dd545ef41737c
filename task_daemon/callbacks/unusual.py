"""Receivers' answers that are not of the usual kind, as h11 understands them. Loaded when the first of them comes."""

import h11

from task_daemon.callbacks.message import ANSWER_LIMIT, NotHttp, Response

HEADER_LIMIT = 16 * 1024  # bytes of an answer's status line and headers


class Unusual:
    """An answer as h11 understands it. `keep`: another request may follow it."""

    def __init__(self, method: str) -> None:
        self.keep = False
        self._parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEADER_LIMIT)
        self._parser.send(h11.Request(method=method, target="/", headers=[("Host", ".")]))  # only the method counts here
        self._parser.send(h11.EndOfMessage())
        self._response: h11.Response | None = None
        self._body = b""

    def feed(self, data: bytes) -> Response | None:
        """The answer, once it is there. Raises NotHttp."""
        try:
            return self._fed(data)
        except h11.RemoteProtocolError as error:
            raise NotHttp(str(error)) from error

    def _fed(self, data: bytes) -> Response | None:
        self._parser.receive_data(data)
        while True:
            event = self._parser.next_event()
            if isinstance(event, h11.Response):
                self._response = event
            elif isinstance(event, h11.Data):
                self._body += event.data
                if len(self._body) > ANSWER_LIMIT:
                    return self._answer()
            elif isinstance(event, h11.EndOfMessage):
                self.keep = self._parser.their_state is h11.DONE and not self._parser.trailing_data[0]
                return self._answer()
            elif not isinstance(event, h11.InformationalResponse):
                return None

    def _answer(self) -> Response:
        assert self._response is not None
        after = (value.decode("latin-1") for name, value in self._response.headers if name == b"retry-after")
        return Response(self._response.status_code, self._body[:ANSWER_LIMIT], next(after, None))
