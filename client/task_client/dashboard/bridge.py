"""The bridge: HTTP on a loopback port of the calling user, whose requests go on to the daemon's socket.

The daemon sees the calling user, as with every other client, and judges what may be seen and changed. Only what the page needs
is let through; registering is not: whoever takes the page over must not be able to start commands with it.
"""

import http.client
import json
import re
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from urllib.parse import parse_qs, urlsplit

from task_client.dashboard.gate import Gate
from task_client.errors import DaemonUnreachable
from task_client.unix import open_unix

ONWARD = (
    ("GET", r"v1/(tasks|events|callbacks|zones|actions|info)"),
    ("GET", r"v1/tasks/[\w-]+(/events|/callbacks|/explain)?"),
    ("POST", r"v1/tasks/[\w-]+/(cancel|poll|resolve)"),
    ("POST", r"v1/callbacks/[\w-]+/(replay|ack)"),
    ("POST", r"v1/zones/[^/?]+/(pause|resume)"),
)
"""Requests that go on to the daemon."""

REQUEST_HEADERS = ("Accept", "Content-Type", "If-None-Match", "Last-Event-ID")
ANSWER_HEADERS = ("Content-Type", "ETag", "Retry-After")
LARGEST_BODY = 64 * 1024
DAEMON_WITHIN = 330.0  # seconds; the longest wait that the daemon grants, and some
IDLE = 120.0  # seconds that a silent connection of the browser is kept

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
SAFETY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
ENTERED = """<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="0;url={base}">
<link rel="icon" href="{base}icon.svg"><title>task-daemon</title><p><a href="{base}">To the dashboard</a></p></html>"""
"""A page and no redirect: SameSite=Strict keeps the cookie back when a redirect began on another site."""


def page_files() -> dict[str, tuple[str, bytes]]:
    """Everything the page consists of: name → content type and bytes."""
    folder = files("task_client.dashboard") / "page"
    found = {}
    for entry in [*folder.iterdir(), *(folder / "libraries").iterdir()]:
        kind = TYPES.get("." + entry.name.rpartition(".")[2])
        if kind is not None and entry.is_file():
            name = entry.name if (folder / entry.name).is_file() else f"libraries/{entry.name}"
            found["" if name == "index.html" else name] = (kind, entry.read_bytes())
    return found


class Bridge(ThreadingHTTPServer):
    """One dashboard. `link` opens it, once. Raises OSError if the port is taken; 0 takes any free one."""

    daemon_threads = True

    def __init__(self, unix_socket: str, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Request)
        self.unix_socket = unix_socket
        self.gate = Gate(self.server_address[1])
        self.page = page_files()

    @property
    def link(self) -> str:
        return self.gate.link

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that closes its connection in the middle is no news."""


class _ToDaemon(http.client.HTTPConnection):
    def __init__(self, unix_socket: str) -> None:
        super().__init__("localhost", timeout=DAEMON_WITHIN)
        self._unix_socket = unix_socket

    def connect(self) -> None:
        self.sock = open_unix(self._unix_socket, DAEMON_WITHIN)


class _Request(BaseHTTPRequestHandler):
    server: Bridge
    protocol_version = "HTTP/1.1"
    server_version = "task-dashboard"
    sys_version = ""
    timeout = IDLE
    wbufsize = -1  # an answer is one write, not one for each header

    def do_GET(self) -> None:
        self._judge(urlsplit(self.path).path == "/open")

    def do_POST(self) -> None:
        self._judge(entering=False)

    def log_message(self, *_: object) -> None:
        """Silent: the terminal belongs to the user."""

    def _judge(self, entering: bool) -> None:
        gate = self.server.gate
        refusal = gate.refusal(self.command, dict(self.headers), entering)
        if refusal is not None:
            self._refuse(HTTPStatus.FORBIDDEN, "forbidden", refusal)
        elif entering:
            self._enter()
        elif not self.path.startswith(gate.base) or not gate.admits(self.headers.get("Cookie")):
            text = "cannot show the dashboard: open the link that `taskctl dashboard` printed, in this browser"
            self._refuse(HTTPStatus.FORBIDDEN, "forbidden", text)
        else:
            self._serve(self.path.removeprefix(gate.base))

    def _enter(self) -> None:
        gate = self.server.gate
        cookie = gate.enter(parse_qs(urlsplit(self.path).query).get("token", [""])[0])
        if cookie is None:
            text = "cannot open the dashboard: this link is wrong or was used already; run `taskctl dashboard` for a new one"
            self._refuse(HTTPStatus.FORBIDDEN, "forbidden", text)
            return
        self._answer(HTTPStatus.OK, TYPES[".html"], ENTERED.format(base=gate.base).encode(), {"Set-Cookie": cookie})

    def _serve(self, target: str) -> None:
        path = target.partition("?")[0]
        if any(method == self.command and re.fullmatch(pattern, path) for method, pattern in ONWARD):
            self._onward(target)
        elif self.command == "GET" and path in self.server.page:
            self._answer(HTTPStatus.OK, *self.server.page[path])
        else:
            text = f"cannot find {self.command} {path}: the dashboard shows tasks, events, callbacks and zones"
            self._refuse(HTTPStatus.NOT_FOUND, "not-found", text)

    def _onward(self, target: str) -> None:
        length = self.headers.get("Content-Length") or "0"
        if not length.isdecimal() or int(length) > LARGEST_BODY or "Transfer-Encoding" in self.headers:
            text = f"cannot take this body: it must have a Content-Length of at most {LARGEST_BODY} bytes"
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too-large", text)
            return
        body = self.rfile.read(int(length)) or None
        headers = {name: self.headers[name] for name in REQUEST_HEADERS if name in self.headers}
        daemon = _ToDaemon(self.server.unix_socket)
        try:
            try:
                daemon.request(self.command, f"/{target}", body, headers)
                answer = daemon.getresponse()
            except DaemonUnreachable as error:
                self._refuse(HTTPStatus.BAD_GATEWAY, "unreachable", str(error))
                return
            except (OSError, http.client.HTTPException) as error:
                text = f"cannot tell whether {self.command} {target} was carried out: the daemon gave no answer ({error})"
                self._refuse(HTTPStatus.BAD_GATEWAY, "answer-unknown", text)
                return
            self._back(answer)
        finally:
            daemon.close()

    def _back(self, answer: http.client.HTTPResponse) -> None:
        kept = {name: answer.headers[name] for name in ANSWER_HEADERS if name in answer.headers}
        if not kept.get("Content-Type", "").startswith("text/event-stream"):
            self._answer(answer.status, kept.pop("Content-Type", "application/json"), answer.read(), kept)
            return
        self.close_connection = True
        self._head(answer.status, kept | {"Connection": "close"})
        while part := answer.read1(65536):
            self.wfile.write(part)
            self.wfile.flush()

    def _refuse(self, status: HTTPStatus, code: str, detail: str) -> None:
        """A problem as the daemon's own are. The connection ends, because a body may be left unread on it."""
        self.close_connection = True
        problem = {"title": status.phrase, "status": int(status), "code": code, "detail": detail}
        self._answer(status, "application/problem+json", json.dumps(problem).encode(), {"Connection": "close"})

    def _answer(self, status: int, kind: str, body: bytes, more: dict[str, str] | None = None) -> None:
        self._head(status, {"Content-Type": kind, "Content-Length": str(len(body)), **(more or {})})
        self.wfile.write(body)
        self.wfile.flush()

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in (headers | SAFETY).items():
            self.send_header(name, value)
        self.end_headers()
