"""The client: one method for each thing the daemon can be asked."""

import builtins
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, Literal, overload
from urllib.parse import quote

from task_client import waiting
from task_client.calls import Caller, members
from task_client.errors import RequestRefused
from task_client.keys import new_key
from task_client.paths import default_socket
from task_client.transport import Transport
from task_client.types import Callback, Event, Task

Object = dict[str, Any]


class Client:
    """Talks to one daemon. Safe to use from several threads and after a fork.

    `timeout` (seconds) bounds each call, its repetitions included. Calls that may be repeated without harm (all that
    read, and registrations, which carry a key) are repeated within it when the daemon is starting or stopping or the
    connection broke. A daemon that is not there at all is reported at once, except by `wait`, `wait_many` and `watch`.
    Every method raises DaemonUnreachable, AnswerUnknown and RequestRefused.
    """

    def __init__(
        self,
        unix_socket: str | None = None,
        transport: Transport | None = None,
        timeout: float = 30.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if transport is None:
            from task_client.over_socket import SocketTransport

            transport = SocketTransport(unix_socket or default_socket())
        self.unix_socket = transport.unix_socket
        self._sleep = sleep
        self._caller = Caller(transport, timeout, sleep)

    def close(self) -> None:
        self._caller.transport.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------------ registering

    def register(
        self,
        id: str,  # noqa: A002 - the contract's word
        action: str,
        zone: str,
        *,
        params: Mapping[str, Any] | None = None,
        job: str | None = None,
        region_task_id: str | int | None = None,
        callback: str | Mapping[str, Any] | None = None,
        timeout: float | None = None,
        poll_interval: float | None = None,
        labels: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        wait: float | None = None,
    ) -> Task:
        """Have work watched (without `params`: somebody else started it) or done (with `params`).

        On disk before this returns. `timeout` is the task's life in seconds, `wait` how long to wait here for its end.
        `callback` is a URL or the whole object of the contract. The key, made here unless given, makes repeating safe.
        """
        body = draft(
            id, action, zone, params=params, job=job, region_task_id=region_task_id, callback=callback,
            timeout=timeout, poll_interval=poll_interval, labels=labels,
        )  # fmt: skip
        headers = keyed(idempotency_key, wait)
        return self._caller.call("POST", "/v1/tasks", body=body, headers=headers, repeatable=True, hold=wait or 0.0).task()

    def register_many(self, drafts: Sequence[Mapping[str, Any]], *, idempotency_key: str | None = None) -> builtins.list[Task]:
        """Register up to 1000 at once, all or none; each is a mapping with the members of `register`."""
        body = {"tasks": [draft(**each) for each in drafts]}
        answer = self._object("POST", "/v1/tasks:batch", body=body, headers=keyed(idempotency_key), repeatable=True)
        return [Task.read(each) for each in members(answer, "tasks")]

    # ------------------------------------------------------------------ looking and waiting

    @overload
    def get(self, uid: str, wait: float | None = None, until: Literal["change"] | None = None, etag: None = None) -> Task: ...
    @overload
    def get(
        self, uid: str, wait: float | None = None, until: Literal["change"] | None = None, *, etag: int | str
    ) -> Task | None: ...
    def get(
        self,
        uid: str,
        wait: float | None = None,
        until: Literal["change"] | None = None,
        etag: int | str | None = None,
    ) -> Task | None:
        """The task; with `wait` once it is done or that many seconds are over (at most 300), or has changed.

        `etag` is the revision known already: None is answered if it is still that one.
        """
        return self._get(uid, wait, until, etag, None)

    def list(
        self,
        *,
        labels: Mapping[str, str] | None = None,
        created_after: datetime | str | None = None,
        page_size: int | None = None,
        **filters: Any,
    ) -> Iterator[Task]:
        """Tasks, newest first, page by page as they are asked for.

        Filters: `state` (one or several), `done`, `zone`, `action`, `id`, `region_task_id`, `owner`.
        """
        query = tasks_query(labels, created_after, page_size, filters)
        yield from (Task.read(each) for each in self._listed("/v1/tasks", "tasks", query))

    def wait(self, uid: str, timeout: float | None = None, raise_on_failure: bool = False) -> Task:
        """Wait for the end, across restarts of the daemon. Raises WaitTimeout; TaskFailed if asked to."""
        return waiting.result_of(waiting.wait(uid, timeout, raise_on_failure), self._ask)

    def wait_many(
        self,
        uids: Sequence[str],
        until: Literal["all", "any"] = "all",
        timeout: float | None = None,
        raise_on_failure: bool = False,
    ) -> builtins.list[Task]:
        """Wait for the end of all (answered in the order given), or of any (answered: those that have ended)."""
        plan = waiting.wait_any if until == "any" else waiting.wait_all
        return waiting.result_of(plan(uids, timeout, raise_on_failure), self._ask)

    def watch(self, uid: str, timeout: float | None = None) -> Iterator[Task]:
        """The task now and after every change, progress included, up to its end. Raises WaitTimeout."""
        return waiting.told(waiting.Course(waiting.watch(uid, timeout)), self._ask)

    def watch_many(self, uids: Sequence[str], timeout: float | None = None, every: float = 1.0) -> Iterator[Task]:
        """Each task now and after every change, until all have ended. Raises WaitTimeout with those that have not.

        Changes of state are told at once; progress is looked at every `every` seconds, less often for more than 50 tasks.
        """
        return waiting.told(waiting.Course(waiting.watch_many(uids, timeout, every)), self._ask)

    # ------------------------------------------------------------------ steering

    def cancel(self, uid: str, stop_tracking: bool = False) -> Task:
        """Ask for the end of the work. `stop_tracking` is needed for work the daemon did not start: it goes on unwatched."""
        body = {"stop_tracking": True} if stop_tracking else {}
        return self._caller.call("POST", task_path(uid, "/cancel"), body=body, repeatable=True).task()

    def poll(self, uid: str) -> None:
        """Have the backend looked at now."""
        self._caller.call("POST", task_path(uid, "/poll"), body={}, repeatable=True)

    def resolve(self, uid: str, state: Literal["succeeded", "failed"], reason: str = "") -> Task:
        """Decide how a lost task ended."""
        return self._caller.call("POST", task_path(uid, "/resolve"), body={"state": state, "reason": reason}).task()

    def delete(self, uid: str) -> None:
        """Forget a task that is done."""
        self._caller.call("DELETE", task_path(uid))

    # ------------------------------------------------------------------ history and callbacks

    def cursor(self) -> int:
        """The number of the last event there is; `events(after=...)` goes on from it."""
        return int(self._object("GET", "/v1/tasks", query=[("page_size", 1)]).get("cursor") or 0)

    def events(self, uid: str | None = None, after: int = 0, follow: bool = False, progress: bool = False) -> Iterator[Event]:
        """Events in their order, of one task or of all, from `after` on. `follow` waits for more, for ever, over a connection of
        its own, across restarts of the daemon and without a gap; RequestRefused `cursor-expired` says when that cannot be. With
        `progress`, which follows, there are also events of type `progress`, without a `seq`: how far live tasks are.
        """
        path = "/v1/events" if uid is None else task_path(uid, "/events")
        if follow or progress:
            from task_client import stream

            yield from stream.follow(self.unix_socket, f"{path}?progress=true" if progress else path, after, self._sleep)
        while True:
            found, after = self._page(after, 0.0, None, path)
            yield from found
            if not found:
                return

    def callbacks(self, uid: str | None = None, state: str | None = None, limit: int | None = None) -> builtins.list[Callback]:
        """Callbacks of one task or of all, in one state (pending, delivered, dead, acked) or in any; at most `limit`."""
        if uid is None:
            rows = self._listed("/v1/callbacks", "callbacks", [("state", state)] if state else [])
        else:
            rows = iter(members(self._object("GET", task_path(uid, "/callbacks")), "callbacks"))
        found = (Callback.read(row) for row in rows)
        return builtins.list(islice((each for each in found if state is None or each.state == state), limit))

    def callback(self, callback_id: str) -> Callback:
        """One callback with its latest tries."""
        return Callback.read(self._object("GET", callback_path(callback_id)))

    def replay(self, callback_id: str) -> Callback:
        """Have a callback made again from the start of its schedule."""
        return Callback.read(self._object("POST", callback_path(callback_id, "/replay"), body={}))

    def ack(self, callback_id: str) -> Callback:
        """Take a callback as read: it is not made any more."""
        return Callback.read(self._object("POST", callback_path(callback_id, "/ack"), body={}, repeatable=True))

    def explain(self, uid: str) -> Object:
        """Why the task is where it is, and what happens next and when."""
        return self._object("GET", task_path(uid, "/explain"))

    # ------------------------------------------------------------------ zones and the daemon itself

    def zones(self) -> builtins.list[Object]:
        return members(self._object("GET", "/v1/zones"), "zones")

    def pause_zone(self, zone: str) -> Object:
        return self._object("POST", zone_path(zone, "/pause"), body={}, repeatable=True)

    def resume_zone(self, zone: str) -> Object:
        return self._object("POST", zone_path(zone, "/resume"), body={}, repeatable=True)

    def actions(self) -> builtins.list[Object]:
        return members(self._object("GET", "/v1/actions"), "actions")

    def info(self) -> Object:
        return self._object("GET", "/v1/info")

    def configuration(self) -> Object:
        """What the daemon was told: `toml` without secrets, and the `file` it came from. For admins."""
        return self._object("GET", "/v1/config")

    def recent_log(self) -> builtins.list[str]:
        """The latest lines of the daemon's log, oldest first. For admins."""
        return [str(line) for line in self._object("GET", "/v1/log").get("lines") or ()]

    def check_store(self) -> Object:
        """Whether the store is sound: `ok`, `findings`. Takes up to 20 s. For admins."""
        return self._object("GET", "/v1/check")

    def metrics(self) -> str:
        """What the daemon has counted, in the text format of Prometheus."""
        return self._caller.call("GET", "/metrics", headers={"Accept": "text/plain"}).body.decode()

    def ping(self) -> bool:
        """True if a task-daemon answers. A busy one may take long: never a reason to start another."""
        return bool(self._caller.call("GET", "/ping").json() == "pong")

    def healthz(self) -> bool:
        """Whether the process is alive."""
        return self._healthy("/healthz")

    def readyz(self) -> bool:
        """Whether registrations are taken: not while starting, draining or degraded."""
        return self._healthy("/readyz")

    # ------------------------------------------------------------------ inside

    def post_legacy(self, body: Mapping[str, Any]) -> Any:
        """Register by the old surface, `POST /`, which knows a repeat by id, action and zone; answers its JSON text."""
        return self._caller.call("POST", "/", body=body, repeatable=True).json()

    def _ask(self, question: waiting.Question) -> Any:
        if isinstance(question, waiting.Look):
            return self._get(question.uid, question.wait, question.until, question.etag, question.survive)
        if isinstance(question, waiting.Latest):
            return self.cursor()
        try:
            return self._page(question.cursor, question.hold, question.survive)
        except RequestRefused as refusal:
            return waiting.nothing_retained(refusal)

    def _get(
        self,
        uid: str,
        wait: float | None,
        until: str | None,
        etag: int | str | None,
        survive: float | None,
    ) -> Task | None:
        query, headers = look(wait, until, etag)
        answer = self._caller.call("GET", task_path(uid), query=query, headers=headers, hold=wait or 0.0, survive=survive)
        return None if answer.status == 304 else answer.task()

    def _page(self, after: int, hold: float, survive: float | None, path: str = "/v1/events") -> tuple[builtins.list[Event], int]:
        query = [("after", after), ("wait", f"{hold:.4g}")]
        return events_of(self._object("GET", path, query=query, hold=hold, survive=survive), after)

    def _listed(self, path: str, name: str, query: builtins.list[tuple[str, Any]]) -> Iterator[Object]:
        """What is listed under `name`, page by page as it is asked for."""
        token: Any = None
        while True:
            page = self._object("GET", path, query=query + ([("page_token", token)] if token else []))
            yield from members(page, name)
            token = page.get("next_page_token")
            if not token:
                return

    def _object(self, method: str, path: str, **options: Any) -> Object:
        return self._caller.call(method, path, **options).object()

    def _healthy(self, path: str) -> bool:
        return self._caller.transport.request("GET", path, {}, timeout=self._caller.timeout).status == 200


def draft(id: str, action: str, zone: str, **given: Any) -> Object:  # noqa: A002
    """The body of a registration: only what was given, a bare callback URL made the object the contract wants."""
    body: Object = {"id": id, "action": action, "zone": zone}
    for name, value in given.items():
        if value is not None:
            body[name] = {"url": value} if name == "callback" and isinstance(value, str) else value
    return body


def keyed(idempotency_key: str | None = None, wait: float | None = None) -> dict[str, str]:
    """The headers of a registration: a key that makes repeating it safe, and for how many seconds its end is waited for."""
    headers = {"Idempotency-Key": idempotency_key or new_key()}
    return headers if wait is None else {**headers, "Prefer": f"wait={wait:g}"}


def look(wait: float | None, until: str | None, etag: int | str | None) -> tuple[list[tuple[str, Any]], dict[str, str]]:
    """Query and headers of a look at one task."""
    query: list[tuple[str, Any]] = [] if wait is None else [("wait", f"{wait:.4g}")]
    query += [] if until is None else [("until", until)]
    return query, {} if etag is None else {"If-None-Match": f'"{str(etag).strip(chr(34))}"'}


def tasks_query(
    labels: Mapping[str, str] | None, created_after: datetime | str | None, page_size: int | None, filters: Mapping[str, Any]
) -> list[tuple[str, Any]]:
    """The filters of `Client.list` as they are sent."""
    if isinstance(created_after, datetime):
        created_after = created_after.isoformat()
    query = [("label", f"{name}:{value}") for name, value in (labels or {}).items()]
    for name, value in {**filters, "created_after": created_after, "page_size": page_size}.items():
        several = value if isinstance(value, (tuple, set, frozenset, list)) else (value,)
        query += [(name, each) for each in several if each is not None]
    return query


def events_of(page: Mapping[str, Any], after: int) -> tuple[list[Event], int]:
    """The events of an answer, and the cursor to go on from."""
    found = [Event.read(each) for each in members(page, "events")]
    return found, max([after, *(each.seq for each in found), int(page.get("cursor") or 0)])


def task_path(uid: str, rest: str = "") -> str:
    return f"/v1/tasks/{quote(uid, safe='')}{rest}"


def zone_path(zone: str, rest: str = "") -> str:
    return f"/v1/zones/{quote(zone, safe='')}{rest}"


def callback_path(callback_id: str, rest: str = "") -> str:
    return f"/v1/callbacks/{quote(callback_id, safe='')}{rest}"
