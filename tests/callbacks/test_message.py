"""Which answers are taken as usual ones, and which requests are none."""

import pytest

from task_daemon.callbacks.message import LONGEST, Form, Response, encoded, usual

LIMIT = 100
OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", Response(204, b"")),
        (b"HTTP/1.1 204\r\nContent-Length: 0\r\n\r\n", Response(204, b"")),
        (OK + b"content-length:2\r\nX-Odd: \xe4 b\t\r\n\r\nok", Response(200, b"ok")),
        (OK + b"Connection: Keep-Alive\r\nContent-Length: 0\r\n\r\n", Response(200, b"")),
        (b"HTTP/1.1 503 \r\nRetry-After:  7 \r\nContent-Length: 0\r\n\r\n", Response(503, b"", "7")),
    ],
)
def test_usual_answer_is_understood(data: bytes, answer: Response) -> None:
    assert usual(data, LIMIT) == answer


@pytest.mark.parametrize("end", range(1, len(OK + b"Content-Length: 2\r\n\r\nok")))
def test_more_is_waited_for_when_the_answer_is_not_whole(end: int) -> None:
    assert usual((OK + b"Content-Length: 2\r\n\r\nok")[:end], LIMIT) is True


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        OK + b"\r\n",  # its body ends with the connection
        OK + b"Content-Length: 0\r\nConnection: close\r\n\r\n",
        OK + b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n",
        OK + b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n",
        OK + b"Content-Length: -1\r\n\r\n",
        OK + b"Content-Length: 101\r\n\r\n",  # longer than what is read
        OK + b"Content-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\n",  # something follows it
        OK + b"Content-Length : 0\r\n\r\n",
        OK + b"A: b\r\n folded\r\nContent-Length: 0\r\n\r\n",
        OK + b"A: \x00\r\nContent-Length: 0\r\n\r\n",
        OK + b"A: " + b"x" * LONGEST,
    ],
)
def test_every_other_answer_is_left_to_h11(data: bytes) -> None:
    assert usual(data, LIMIT) is None


def test_request_has_its_length_and_its_headers() -> None:
    assert encoded("POST", "/h?q=1", {"Host": "h", "X-Empty": ""}, b"body") == (
        b"POST /h?q=1 HTTP/1.1\r\nHost: h\r\nX-Empty: \r\nContent-Length: 4\r\n\r\nbody"
    )


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("PO ST", "/", {}),
        ("POST", "/a b", {}),
        ("POST", "/\r\nX: y", {}),
        ("POST", "/", {"X": "a\r\nEvil: b"}),
        ("POST", "/", {"X": "a\nEvil: b"}),
        ("POST", "/", {"X: a\nEvil": "b"}),
        ("POST", "/", {"X": "\u00e4"}),
        ("POST", "/", {"": "b"}),
    ],
)
def test_request_is_refused_when_it_would_not_be_http(method: str, path: str, headers: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="is not valid HTTP"):
        encoded(method, path, headers, b"")


def test_form_is_the_same_request_with_blanks_filled_in() -> None:
    form = Form("POST", "/100%25s?x=%d", {"Host": "h"}, ("A", "B"))

    assert form.filled(("1", "2 %s"), b"%d") == encoded("POST", "/100%25s?x=%d", {"Host": "h", "A": "1", "B": "2 %s"}, b"%d")


@pytest.mark.parametrize("value", ["a\r\nEvil: b", "a\nEvil: b", "\u00e4", "\0"])
def test_form_is_not_filled_with_what_would_not_be_http(value: str) -> None:
    with pytest.raises(ValueError, match="is not valid HTTP"):
        Form("POST", "/", {}, ("A",)).filled((value,), b"")


def test_form_is_refused_when_it_would_not_be_http() -> None:
    with pytest.raises(ValueError, match="is not valid HTTP"):
        Form("POST", "/a b", {}, ())
