"""The access log: one line for each request that changes something or goes wrong.

A crowd of registrations would spend a quarter of its time on such lines. So of hot requests that went well only the first
of a second have one, and one line counts the others (core/crowd.py); each registration is an event in any case, and has its
line with log_level = "debug".
"""

import logging
import re
import time

from tornado.web import RequestHandler

from task_daemon.api.access import Caller
from task_daemon.core.crowd import Crowd
from task_daemon.core.errors import Refusal

log = logging.getLogger("task_daemon.api")

TASK = re.compile(r"/v1/tasks/([0-9a-f-]{36})(?:/|$)")
SAFE = frozenset({"GET", "HEAD"})
LONGEST = 1000  # characters of what a caller sent; a body may hold names of any length


def log_request(handler: RequestHandler) -> None:
    """For Tornado, which calls it at the end of each request."""
    request = handler.request
    handler.settings["api"].answered[handler.get_status()] += 1
    caller: Caller | None = getattr(handler, "caller", None)
    refusal: Refusal | None = getattr(handler, "refusal", None)
    number, took = getattr(handler, "request_id", "-"), request.request_time()
    about = task_in(handler._headers.get("Location") or request.path)
    log_answer(request.method or "?", request.path, handler.get_status(), took, caller, number, refusal, about)


def log_answer(
    method: str,
    path: str,
    status: int,
    took: float,
    caller: Caller | None,
    number: str,
    refusal: Refusal | None = None,
    about: str | None = None,
) -> None:
    """`took`: seconds; `about`: uid of the task. Reading has a line with log_level = "debug" only."""
    level = logging.WARNING if status >= 500 else logging.INFO if status >= 400 or method not in SAFE else logging.DEBUG
    if not log.isEnabledFor(level):
        return
    uid, pid = ("?", "?") if caller is None else (caller.peer.uid, caller.peer.pid)
    why = "" if refusal is None else f": {_one_line(refusal.detail)}"
    text = "%s %s %d in %.1f ms, user %s, pid %s, request %s%s"
    if about is not None and about not in path:
        why += f", task {about}"
    log.log(
        level,
        text,
        *(method, _one_line(path), status, took * 1000, uid, pid, number, why),
        extra={"uid": about, "request_id": number},
    )


def task_in(path: str) -> str | None:
    """The uid in the path of a task."""
    found = TASK.match(path)
    return found and found[1]


class Thinned:
    """Which hot requests that went well have a line of their own."""

    def __init__(self) -> None:
        self._crowd = Crowd(_tell)

    def has_line(self) -> bool:
        """Event loop."""
        return log.isEnabledFor(logging.DEBUG) or self._crowd.has_line(time.monotonic())


def _tell(left_out: int) -> None:
    text = '%d more requests were carried out in the last second; /v1/events has them, log_level = "debug" shows each'
    log.info(text, left_out)


def _one_line(text: str) -> str:
    """What a caller sent must not look like a line of its own in the log."""
    if text.isprintable():
        return text[:LONGEST]
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:LONGEST])
