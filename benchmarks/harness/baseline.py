"""The limit of the house's web server: a bare Tornado `HTTPServer` that answers every request with the same bytes.

python -m benchmarks.harness.baseline SOCKET FILE-WITH-THE-ANSWER
"""

import asyncio
import json
import re
import signal
import socket
import sys
from pathlib import Path

from benchmarks.harness.daemon import Daemon, draft, request
from benchmarks.harness.process import Process, module


class Baseline(Process):
    """Answers on its `socket` what `daemon` answers to a registration, byte for byte, and does nothing else."""

    def __init__(self, home: Path, daemon: Daemon) -> None:
        home.mkdir(exist_ok=True)
        self.socket = str(home / "s")
        file = home / "answer"
        file.write_bytes(kept_answer(daemon))
        super().__init__(module("benchmarks.harness.baseline", self.socket, str(file)), home / "log")
        self.await_that("it listened", lambda: listens(self.socket))


def listens(path: str) -> bool:
    """A socket that is there does not: it is bound first."""
    with socket.socket(socket.AF_UNIX) as connection:
        return connection.connect_ex(path) == 0


def kept_answer(daemon: Daemon) -> bytes:
    """All bytes of the answer to a registration on a connection that is kept."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(daemon.socket)
        connection.sendall(request("POST", "/v1/tasks", draft("for-the-baseline")))
        answer = b""
        while True:
            answer += connection.recv(1 << 16)
            head, end, body = answer.partition(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: (\d+)", head)
            if end and length and len(body) >= int(length[1]):
                return answer


def main() -> None:
    from tornado.http1connection import HTTP1Connection
    from tornado.httpserver import HTTPServer
    from tornado.httputil import HTTPHeaders, HTTPServerRequest, ResponseStartLine
    from tornado.netutil import bind_unix_socket

    path, file = sys.argv[1:]
    head, _, body = Path(file).read_bytes().partition(b"\r\n\r\n")
    first, _, lines = head.decode().partition("\r\n")
    _, status, reason = first.split(" ", 2)
    start = ResponseStartLine("HTTP/1.1", int(status), reason)
    headers = HTTPHeaders.parse(lines)

    def answer(asked: HTTPServerRequest) -> None:
        json.loads(asked.body)  # as anybody would
        connection = asked.connection
        assert isinstance(connection, HTTP1Connection)
        connection.write_headers(start, headers, body)
        connection.finish()

    async def serve() -> None:
        server = HTTPServer(answer)
        server.add_socket(bind_unix_socket(path))
        ended = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
        await ended.wait()

    asyncio.run(serve())


if __name__ == "__main__":
    main()
