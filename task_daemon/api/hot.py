"""The hot requests: recognised by their bytes, answered without Tornado's request handlers, which cost more than all the rest.

Only a request with nothing special about it is taken: a route of `app.HOT`, headers of PLAIN and no others, a small body of
known length, a caller with the right, a daemon that is ready. Everything else, and everything doubtful, goes through the route
table as if nobody had looked at it before. Both ways give the same answers (tests/api/test_hot.py).
"""

import logging
import math
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import lru_cache
from http.client import responses

import msgspec
import tornado
from msgspec import Struct
from tornado.httputil import format_timestamp
from tornado.iostream import StreamClosedError

from task_daemon.api import bodies
from task_daemon.api.access import Caller, Level
from task_daemon.api.access_log import Thinned, log_answer, task_in
from task_daemon.api.base import ACCEPTED, JSON_TYPES, Reply, is_key, new_request_id
from task_daemon.api.context import Api
from task_daemon.api.problems import problem, refusal_of
from task_daemon.core.errors import InvalidBody, Refusal, UnknownAction, UnknownZone
from task_daemon.core.model import Task
from task_daemon.core.ports import Added, Tell
from task_daemon.core.view import Shown
from task_daemon.tracking.admit import Registration
from task_daemon.tracking.manager import TaskManager

log = logging.getLogger("task_daemon.api")

LONGEST_HEAD = 1024  # bytes
LARGEST_BODY = 64 * 1024  # bytes; reading a longer one would hold the event loop up (4 MiB of tiny objects take half a second)
PLAIN = ("host", "user-agent", "accept", "accept-encoding", "connection", "content-type", "content-length", "idempotency-key")
KEY = b"\r\nIdempotency-Key: "
JSON = "application/json; charset=UTF-8"
LINE = re.compile(r"([A-Za-z-]+): ?([\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)")
HOST = re.compile(r"[A-Za-z0-9._:-]+")
DIGITS = re.compile(r"[0-9]{1,6}")

_encode = msgspec.json.Encoder().encode


GetReady = Callable[[Reply], Tell]
"""Makes the bytes of a reply; what it gives back sends them."""

Answerer = Callable[[Api, Caller, bytes, str | None, GetReady | None], Awaitable[Reply]]
"""From the body and the Idempotency-Key to the reply, which may have been sent already if it was got ready. Raises Refusal."""

ReplyTo = Callable[[Sequence[Task], Sequence[Shown], float], Reply]
"""From new tasks, their views and the seconds after which asking again is worth it to the reply."""


class Request(Struct, frozen=True):
    """What the header block of a hot request says; `route` is method and path, `length` that of the body in bytes."""

    method: str
    path: str
    route: str
    length: int
    key: str | None


# ------------------------------------------------------------------ the answers; the request handlers give them, too


async def register(api: Api, caller: Caller, raw: bytes, key: str | None, get_ready: GetReady | None = None) -> Reply:
    (added,), reply = await _stored(api.manager, (bodies.registration(raw),), caller, key, _registered, get_ready)
    return reply or await _replayed(api.manager, added)


async def register_old(api: Api, caller: Caller, raw: bytes, _key: str | None, get_ready: GetReady | None = None) -> Reply:
    def meanwhile(tasks: Sequence[Task]) -> Tell | None:
        return None if get_ready is None else get_ready(_registered_old(tasks[0]))

    (added,) = await api.manager.register((bodies.old_registration(raw),), caller.owner, None, meanwhile)
    return _registered_old(added.task)


async def register_batch(api: Api, caller: Caller, raw: bytes, key: str | None, _get_ready: GetReady | None = None) -> Reply:
    return await register_all(api, caller, bodies.batch(raw), key)


async def register_all(api: Api, caller: Caller, registrations: list[Registration], key: str | None) -> Reply:
    manager = api.manager
    try:
        added, reply = await _stored(manager, registrations, caller, key, _all_registered)
    except (InvalidBody, UnknownZone, UnknownAction) as refusal:
        if not refusal.members or refusal.members[0][0] == "Idempotency-Key":
            raise
        raise bodies.of_a_batch(refusal, 0) from None
    if reply is None:
        tasks = [each.task for each in added]
        retry_after = manager.retry_after(tasks[0])
        reply = _all_registered(tasks, await manager.views(tasks), retry_after)
        if all(each.replayed for each in added):
            reply.headers["Idempotency-Replayed"] = "true"
    return reply


async def ping(_api: Api, _caller: Caller, _raw: bytes, _key: str | None, _get_ready: GetReady | None = None) -> Reply:
    return Reply(200, {}, b'"pong"')


async def _stored(
    manager: TaskManager,
    registrations: Sequence[Registration],
    caller: Caller,
    key: str | None,
    reply_to: ReplyTo,
    get_ready: GetReady | None = None,
) -> tuple[list[Added], Reply | None]:
    """What was stored, and the reply if every task is new: as a rule it was made while the store wrote."""
    ready: list[Reply] = []

    def meanwhile(tasks: Sequence[Task]) -> Tell | None:
        ready.append(reply_to(tasks, *manager.coming(tasks)))
        return None if get_ready is None else get_ready(ready[0])

    added = await manager.register(registrations, caller.owner, key, meanwhile)
    if sum([each.replayed for each in added]):
        return added, None
    if ready:
        return added, ready[0]
    tasks = [each.task for each in added]
    return added, reply_to(tasks, *manager.fresh(tasks))


def _registered(tasks: Sequence[Task], views: Sequence[Shown], retry_after: float) -> Reply:
    headers = {"Location": f"/v1/tasks/{tasks[0].uid}", "Retry-After": str(math.ceil(retry_after))}
    return Reply(202, headers, _encode(views[0]))


def _registered_old(task: Task) -> Reply:
    return Reply(200, {"Location": f"/v1/tasks/{task.uid}"}, b'""')


def _all_registered(_tasks: Sequence[Task], views: Sequence[Shown], retry_after: float) -> Reply:
    return Reply(202, {"Retry-After": str(math.ceil(retry_after))}, _encode({"tasks": views}))


async def _replayed(manager: TaskManager, added: Added) -> Reply:
    task = added.task
    headers = {"Location": f"/v1/tasks/{task.uid}", "Idempotency-Replayed": "true"}
    if not task.done:
        headers["Retry-After"] = str(math.ceil(manager.retry_after(task)))
    return Reply(200, headers, _encode(await manager.view(task)))


# ------------------------------------------------------------------ recognising, and the bytes of an answer


class Hot:
    """The hot routes of one application: for a request line, the right it needs and who answers."""

    def __init__(self, api: Api, routes: Mapping[str, tuple[Level, Answerer]]) -> None:
        self.api = api
        self._routes = routes
        self._thinned = Thinned()
        self._head, self._request = b"", read_head(b"")  # the last that was read: each is asked about twice

    def body_after(self, head: bytes) -> int:
        """How many bytes the body has if this may be a hot request, else 0."""
        request = self._read(head)
        return 0 if request is None or request.route not in self._routes else request.length

    def request(self, head: bytes, caller: Caller) -> Request | None:
        """What is asked; None if Tornado has to look at it."""
        request = self._read(head)
        if request is None or self.api.unready() is not None:
            return None
        route = self._routes.get(request.route)
        if route is None:
            return None
        try:
            caller.check(route[0])
        except Refusal:
            return None
        return request

    def _read(self, head: bytes) -> Request | None:
        if head != self._head:
            self._head, self._request = head, read_head(head) if len(head) <= LONGEST_HEAD else None
        return self._request

    async def answer(self, request: Request, caller: Caller, raw: bytes, began: float, send: Callable[[bytes], None]) -> None:
        """`send` may raise StreamClosedError. `began`: of `time.perf_counter`."""
        number = new_request_id()
        refusal: Refusal | None = None
        answer, kind = _Answer(number, self.api.daemon.version, send), JSON
        self.api.manager.heard_of(caller.peer.uid)
        try:
            reply = await self._routes[request.route][1](self.api, caller, raw, request.key, answer.get_ready)
        except Exception as error:
            refusal = refusal_of(error, request.method, request.path, ())
            if refusal is not error:
                text = "cannot answer %s %s: unexpected error (request %s)"
                log.error(text, request.method, request.path, number, exc_info=error)
            status, headers, members = problem(refusal, number)
            kind = headers.pop("Content-Type")
            if self.api.daemon.phase().name == "draining":
                headers["Connection"] = "close"
            reply = Reply(status, headers, _encode(members))
        answer.send(reply, kind)
        self.api.answered[reply.status] += 1
        if reply.status >= 300 or self._thinned.has_line():
            took, about = time.perf_counter() - began, task_in(reply.headers.get("Location", ""))
            log_answer(request.method, request.path, reply.status, took, caller, number, refusal, about)


class _Answer:
    """To one request: its bytes are made as soon as the reply is known, and sent once."""

    __slots__ = ("_bytes", "_number", "_ready", "_send", "_sent", "_version")

    def __init__(self, number: str, version: str, send: Callable[[bytes], None]) -> None:
        self._number = number
        self._version = version
        self._send = send
        self._ready: Reply | None = None
        self._bytes = b""
        self._sent = False

    def get_ready(self, reply: Reply, kind: str = JSON) -> Tell:
        more = "".join([f"{name}: {value}\r\n" for name, value in reply.headers.items()])
        beginning = _beginning(reply.status, kind, int(time.time()), self._version)
        head = f"{beginning}{self._number}\r\n{more}Content-Length: {len(reply.body)}\r\n\r\n"
        self._ready, self._bytes = reply, head.encode() + reply.body
        return self._tell

    def send(self, reply: Reply, kind: str) -> None:
        """Unless it was sent as soon as it could be."""
        if self._sent:
            return
        if reply is not self._ready:
            self.get_ready(reply, kind)
        self._tell()

    def _tell(self) -> None:
        self._sent = True
        try:
            self._send(self._bytes)
        except StreamClosedError:
            return  # whoever waits for the next request is told of that, too


def read_head(head: bytes) -> Request | None:
    """None if there is anything in it that this module does not know to be harmless."""
    at = head.find(KEY)
    if at < 0:
        return _read_head(head)
    end = head.find(b"\r\n", at + len(KEY))
    request = _read_head(head[:at] + head[end:])  # all but the key is the same in the next request
    try:
        key = head[at + len(KEY) : end].decode("ascii")
    except ValueError:
        return None
    if request is None or request.key is not None or key != key.strip() or not is_key(key):
        return None
    return Request(request.method, request.path, request.route, request.length, key)


@lru_cache(maxsize=256)  # a client that keeps its connection sends the same bytes again and again
def _read_head(head: bytes) -> Request | None:
    try:
        first, *lines = head.decode("ascii").removesuffix("\r\n\r\n").split("\r\n")
        method, path, version = first.split(" ")
    except ValueError:
        return None
    found: dict[str, str] = {}
    for line in lines:
        match = LINE.fullmatch(line)
        if match is None or match[1].lower() not in PLAIN or match[1].lower() in found:
            return None
        found[match[1].lower()] = match[2]
    length = found.get("content-length", "" if method == "POST" else "0")
    key = found.get("idempotency-key")
    plain = (
        version == "HTTP/1.1"
        and HOST.fullmatch(found.get("host", "")) is not None
        and found.get("connection", "keep-alive").lower() == "keep-alive"
        and found.get("accept", "*/*") in ACCEPTED
        and JSON_TYPES.fullmatch(found.get("content-type", "application/json").partition(";")[0].strip()) is not None
        and (key is None or is_key(key))
        and DIGITS.fullmatch(length) is not None
        and ("content-length" not in found or method == "POST")
        and int(length) <= LARGEST_BODY
    )
    return Request(method, path, f"{method} {path}", int(length), key) if plain else None


@lru_cache(maxsize=8)
def _beginning(status: int, kind: str, second: int, version: str) -> str:
    """What the answers of one second have in common, up to the number of the request."""
    return (
        f"HTTP/1.1 {status} {responses[status]}\r\nServer: TornadoServer/{tornado.version}\r\nContent-Type: {kind}\r\n"
        f"Date: {format_timestamp(second)}\r\nTask-Daemon-Version: {version}\r\nX-Request-Id: "
    )
