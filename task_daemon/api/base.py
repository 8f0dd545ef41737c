"""What all handlers share: who is calling, what is allowed now, the body, the answer, the problem, the access log."""

import asyncio
import itertools
import logging
import math
import os
import re
from collections.abc import Awaitable, Mapping
from functools import partial
from types import TracebackType
from typing import Any, ClassVar, TypeVar

import msgspec
from msgspec import Struct
from tornado.http1connection import HTTP1Connection
from tornado.web import HTTPError, RequestHandler, stream_request_body

from task_daemon.api import redaction
from task_daemon.api.access import Caller, Level
from task_daemon.api.context import Api
from task_daemon.api.parameters import Parameters
from task_daemon.api.problems import MethodNotAllowed, NotAcceptable, TooLarge, UnsupportedMediaType, problem, refusal_of
from task_daemon.core.errors import InvalidBody, NotFound, Refusal
from task_daemon.core.model import Task
from task_daemon.core.view import Shown
from task_daemon.tracking.manager import TaskManager

log = logging.getLogger("task_daemon.api")

BODY_LIMIT = 256 * 1024  # bytes
BATCH_LIMIT = 4 * 1024 * 1024
HARD_STOP = 5 * 1024 * 1024  # a longer body is not even read to its end
LONGEST_WAIT = 300.0  # seconds
SAFE = frozenset({"GET", "HEAD"})
WAIT = re.compile(r"(?:^|[,;\s])wait=(\d{1,9})(?:$|[,;\s])", re.ASCII)
JSON_TYPES = re.compile(r"application/(?:json|[\w.+-]+\+json|x-www-form-urlencoded)", re.ASCII | re.IGNORECASE)
"""What a body may call itself. Form data is there for `curl -d`, which says so of everything; it must be JSON all the same."""
ACCEPTED = frozenset({"*/*", "application/*", "application/json", "application/problem+json"})

_request_numbers = itertools.count(1)
_request_prefix = os.urandom(4).hex()

Result = TypeVar("Result")


def new_request_id() -> str:
    return f"{_request_prefix}-{next(_request_numbers):x}"


def is_key(text: str) -> bool:
    """Whether it will do as an Idempotency-Key."""
    return 1 <= len(text) <= 128 and text.isascii() and text.isprintable()


class Reply(Struct, frozen=True):
    """A JSON answer; `headers` besides those that every answer has."""

    status: int
    headers: dict[str, str]
    body: bytes


class HungUp(Exception):
    """The client has gone; nobody is left to be answered."""


@stream_request_body
class Handler(RequestHandler):
    """Base of all handlers. A method reads, asks the manager, and answers; whatever it raises becomes a problem here.

    The body is taken in pieces, so that one that is too large is counted and thrown away, not kept.
    """

    get_parameters: ClassVar[tuple[str, ...]] = ()
    post_parameters: ClassVar[tuple[str, ...]] = ()
    """Names of the query parameters. Any other is refused."""
    body_limit: ClassVar[int] = BODY_LIMIT
    also_accepts: ClassVar[str | None] = None
    """A media type that is answered besides JSON."""
    lenient: ClassVar[bool] = False
    """The old surface: query and Accept are not looked at, as they never were."""

    caller: Caller
    query: Parameters
    request_id = ""
    refusal: Refusal | None = None
    _counted = False
    _size = 0
    _pending: "asyncio.Future[Any] | None" = None
    _hung_up = False

    def initialize(self, levels: Mapping[str, Level]) -> None:
        self.levels = levels
        self._pieces: list[bytes] = []

    @property
    def api(self) -> Api:
        found: Api = self.settings["api"]
        return found

    @property
    def manager(self) -> TaskManager:
        return self.api.manager

    # ------------------------------------------------------------------ before the method

    def set_default_headers(self) -> None:
        if not self.request_id:
            self.request_id = new_request_id()
        self.set_header("Task-Daemon-Version", self.api.daemon.version)
        self.set_header("X-Request-Id", self.request_id)

    def prepare(self) -> None:
        self._counted = True
        self.api.begin()
        try:
            self._admit()
        except Refusal as refusal:
            # Told after the body was read: an answer before that closes the connection, and a client that is still sending
            # gets ECONNRESET instead of the reason.
            setattr(self, (self.request.method or "").lower(), partial(self._refuse, refusal))
        if self._announced() > HARD_STOP:
            raise self._too_large()

    def _admit(self) -> None:
        request, api = self.request, self.api
        assert isinstance(request.connection, HTTP1Connection)
        self.caller = api.access.caller(request.connection.stream)
        method = request.method or ""
        level = self.levels.get(method)
        if level is None:
            raise MethodNotAllowed(method, request.path, tuple(self.levels))
        self.caller.check(level)
        unready = api.unready()
        if unready is None:
            api.manager.heard_of(self.caller.peer.uid)
        elif level is not Level.OPEN:
            self._check_phase(unready, method)
        if not self.lenient:
            known = self.get_parameters if method == "GET" else self.post_parameters
            self.query = Parameters(request.query_arguments, known)
            accept = request.headers.get("Accept")
            if not _acceptable(accept, self.also_accepts):
                types = "application/json" + (f", {self.also_accepts}" if self.also_accepts else "")
                raise NotAcceptable(f"cannot answer {method} {request.path} as {accept}; accepted: {types}")

    def _check_phase(self, unready: Refusal, method: str) -> None:
        if unready.code == "draining":
            self.set_header("Connection", "close")
        if method not in SAFE or unready.code == "starting":  # before the start is over there is nothing to read from
            raise unready

    async def _refuse(self, refusal: Refusal, *_: str) -> None:
        if self._size > self.body_limit:
            raise self._too_large()
        raise refusal

    def data_received(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._size <= self.body_limit:
            self._pieces.append(chunk)
        else:
            self._pieces.clear()

    def _announced(self) -> int:
        length = self.request.headers.get("Content-Length", "")
        return int(length) if length.isascii() and length.isdigit() and len(length) < 20 else 0

    def _too_large(self) -> TooLarge:
        size = max(self._size, self._announced())
        return TooLarge(f"cannot read the body: it has {size} bytes, and at most {self.body_limit} are accepted here")

    # ------------------------------------------------------------------ for the methods

    def body(self) -> bytes:
        """Raises TooLarge, UnsupportedMediaType."""
        if self._size > self.body_limit:
            raise self._too_large()
        kind = self.request.headers.get("Content-Type")
        if kind and self._size and not JSON_TYPES.fullmatch(kind.partition(";")[0].strip()):
            raise UnsupportedMediaType(f"cannot read a body of type {kind}: application/json is expected")
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)

    def answer(self, payload: Any, status: int = 200) -> None:
        if status != 200:
            self.set_status(status)
        self.set_header("Content-Type", "application/json; charset=UTF-8")
        self.finish(msgspec.json.encode(payload))

    def reply(self, reply: Reply) -> None:
        self.set_status(reply.status)
        for name, value in reply.headers.items():
            self.set_header(name, value)
        self.set_header("Content-Type", "application/json; charset=UTF-8")
        self.finish(reply.body)

    async def task(self, uid: str) -> Task:
        """Raises NotFound for tasks that the caller may not see, too; Gone."""
        task = await self.manager.get(uid)
        if not self.caller.sees(task.owner.uid):
            raise NotFound(f"cannot show task {uid}: no task of that uid (its retention may be over)")
        return task

    async def own_task(self, uid: str) -> Task:
        """A task that the caller may change. Raises Forbidden, NotFound, Gone."""
        task = await self.task(uid)
        self.caller.check_change(task.owner.uid, f"task {uid}")
        return task

    def shown(self, task: Task, view: Shown) -> Shown:
        """The view of a task as the caller may see it."""
        return view if self.caller.sees_all_of(task.owner.uid) else redaction.task(view)

    async def unless_hung_up(self, waiting: Awaitable[Result]) -> Result:
        """The result; the waiting ends when the client hangs up, so that nobody is waited for."""
        pending = asyncio.ensure_future(waiting)
        self._pending = pending
        try:
            return await pending
        except asyncio.CancelledError:
            if self._hung_up:
                raise HungUp from None
            raise

    def preferred_wait(self) -> float | None:
        """Seconds of `Prefer: wait=N` (RFC 7240); None without. What cannot be understood is ignored, as the RFC has it."""
        found = WAIT.search(",".join(self.request.headers.get_list("Prefer")))
        return None if found is None else min(float(found[1]), LONGEST_WAIT)

    def idempotency_key(self) -> str | None:
        key = self.request.headers.get("Idempotency-Key")
        if key is not None and not is_key(key):
            text = "must be 1 to 128 printable ASCII characters"
            raise InvalidBody(f"cannot use header Idempotency-Key: {text}", members=[("Idempotency-Key", text)])
        return key

    def set_retry_after(self, seconds: float) -> None:
        self.set_header("Retry-After", str(math.ceil(seconds)))

    # ------------------------------------------------------------------ the end

    def compute_etag(self) -> str | None:
        return None  # not a hash of every answer; a task's ETag is its revision

    def log_exception(
        self,
        typ: type[BaseException] | None,  # noqa: ARG002  # the error has it
        value: BaseException | None,
        tb: TracebackType | None,  # noqa: ARG002
    ) -> None:
        if value is None or isinstance(value, (Refusal, HTTPError, HungUp)):
            return  # the access log has a line for it
        text = "cannot answer %s %s: unexpected error (request %s)"
        log.error(text, self.request.method, self.request.path, self.request_id, exc_info=value)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = kwargs["exc_info"][1] if "exc_info" in kwargs else HTTPError(status_code)
        if isinstance(error, HungUp):
            self.set_status(499, "Client hung up")
            self.finish()
            return
        method, path = self.request.method or "?", self.request.path
        self.refusal = refusal_of(error, method, path, tuple(self.levels))
        status, headers, body = problem(self.refusal, self.request_id)
        self.set_status(status)
        for name, value in headers.items():
            self.set_header(name, value)
        if self.api.daemon.phase().name == "draining":
            self.set_header("Connection", "close")
        self.finish(msgspec.json.encode(body))

    def on_finish(self) -> None:
        self._end()

    def on_connection_close(self) -> None:
        super().on_connection_close()
        self._hung_up = True
        if self._pending is not None:
            self._pending.cancel()
        self._end()

    def _end(self) -> None:
        if self._counted:
            self._counted = False
            self.api.end()


class Unknown(Handler):
    """Every path that is not in the route table."""

    lenient = True

    def prepare(self) -> None:
        super().prepare()
        refusal = NotFound(f"cannot {self.request.method} {self.request.path}: no such path")
        setattr(self, (self.request.method or "").lower(), partial(self._refuse, refusal))


def _acceptable(header: str | None, also: str | None) -> bool:
    if header is None or header in ACCEPTED:
        return True
    for entry in header.split(","):
        kind, *rest = (part.strip().lower() for part in entry.split(";"))
        if (kind in ACCEPTED or kind == also) and not any(re.fullmatch(r"q=0(\.0*)?", part) for part in rest):
            return True
    return False
