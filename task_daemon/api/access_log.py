"""The access log: one line for each request that changes something or goes wrong."""

import logging
from typing import Any

from tornado.httputil import HTTPServerRequest
from tornado.web import RequestHandler

from task_daemon.api.access import Caller
from task_daemon.core.errors import Refusal

log = logging.getLogger("task_daemon.api")

SAFE = frozenset({"GET", "HEAD"})
LONGEST = 1000  # characters of what a caller sent; a body may hold names of any length


def log_request(handler: RequestHandler) -> None:
    """Reading has a line with log_level = "debug" only."""
    status, request = handler.get_status(), handler.request
    quiet = status < 400 and request.method in SAFE
    level = logging.DEBUG if quiet else logging.INFO if status < 500 else logging.WARNING
    if log.isEnabledFor(level):
        log.log(level, *_line(handler, status, request))


def _line(handler: RequestHandler, status: int, request: HTTPServerRequest) -> tuple[Any, ...]:
    caller: Caller | None = getattr(handler, "caller", None)
    uid, pid = ("?", "?") if caller is None else (caller.peer.uid, caller.peer.pid)
    refusal: Refusal | None = getattr(handler, "refusal", None)
    why = "" if refusal is None else f": {_one_line(refusal.detail)}"
    number = getattr(handler, "request_id", "-")
    took = request.request_time() * 1000
    text = "%s %s %d in %.1f ms, user %s, pid %s, request %s%s"
    return text, request.method, _one_line(request.path), status, took, uid, pid, number, why


def _one_line(text: str) -> str:
    """What a caller sent must not look like a line of its own in the log."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:LONGEST])
