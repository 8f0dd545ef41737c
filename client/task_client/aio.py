"""`AsyncClient`: what `Client` does, for programs on an event loop."""

import asyncio
import builtins
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, nullcontext, suppress
from datetime import datetime
from itertools import islice
from typing import Any, Literal, Self, overload

from task_client import over_tornado, waiting
from task_client.calls import Outage, encode, members, refusal_of, target_of
from task_client.client import callback_path, draft, events_of, keyed, look, task_path, tasks_query, zone_path
from task_client.errors import AnswerUnknown, DaemonUnreachable, RequestRefused
from task_client.paths import default_socket
from task_client.stream import AGAIN, SILENCE, Blocks
from task_client.transport import Answer
from task_client.types import Callback, Event, Task
from task_client.waiting import FOR_EVER, LONGEST_HOLD, Course, Latest, Look, Plan, Question, Result

Object = dict[str, Any]

AT_ONCE = 32  # requests that are answered at once; the daemon takes 256 connections from one user
HELD = 100  # requests that the daemon holds, until something happens


class AsyncClient:
    """Talks to one daemon: the methods of `Client`, with its arguments, answers and errors, to be awaited; those that go on
    (`list`, `watch`, `watch_many`, `events`) are async iterators. For one event loop; every method may be cancelled at any time,
    but a registration that was cancelled may have been carried out.

    `timeout` (seconds) as there. Any number of calls may be under way; of those that wait, the daemon is asked to hold 100
    and the others take turns. `wait_many` and `watch_many` need one, however many tasks there are.
    """

    def __init__(self, unix_socket: str | None = None, timeout: float = 30.0) -> None:
        self.unix_socket = unix_socket or default_socket()
        self._timeout = timeout
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._held = asyncio.Semaphore(HELD)

    def close(self) -> None:
        """Nothing is kept open between calls: here because `Client` has it."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------------ registering

    async def register(
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
        body = draft(
            id, action, zone, params=params, job=job, region_task_id=region_task_id, callback=callback,
            timeout=timeout, poll_interval=poll_interval, labels=labels,
        )  # fmt: skip
        headers = keyed(idempotency_key, wait)
        async with self._held if wait else nullcontext():
            answer = await self._call("POST", "/v1/tasks", body=body, headers=headers, repeatable=True, hold=wait or 0.0)
        return answer.task()

    async def register_many(
        self, drafts: Sequence[Mapping[str, Any]], *, idempotency_key: str | None = None
    ) -> builtins.list[Task]:
        body = {"tasks": [draft(**each) for each in drafts]}
        answer = await self._object("POST", "/v1/tasks:batch", body=body, headers=keyed(idempotency_key), repeatable=True)
        return [Task.read(each) for each in members(answer, "tasks")]

    # ------------------------------------------------------------------ looking and waiting

    @overload
    async def get(
        self, uid: str, wait: float | None = None, until: Literal["change"] | None = None, etag: None = None
    ) -> Task: ...
    @overload
    async def get(
        self, uid: str, wait: float | None = None, until: Literal["change"] | None = None, *, etag: int | str
    ) -> Task | None: ...
    async def get(
        self,
        uid: str,
        wait: float | None = None,
        until: Literal["change"] | None = None,
        etag: int | str | None = None,
    ) -> Task | None:
        return await self._get(uid, wait, until, etag, None)

    async def list(
        self,
        *,
        labels: Mapping[str, str] | None = None,
        created_after: datetime | str | None = None,
        page_size: int | None = None,
        **filters: Any,
    ) -> AsyncIterator[Task]:
        async for each in self._listed("/v1/tasks", "tasks", tasks_query(labels, created_after, page_size, filters)):
            yield Task.read(each)

    async def wait(self, uid: str, timeout: float | None = None, raise_on_failure: bool = False) -> Task:
        return await self._result_of(waiting.wait(uid, timeout, raise_on_failure))

    async def wait_many(
        self,
        uids: Sequence[str],
        until: Literal["all", "any"] = "all",
        timeout: float | None = None,
        raise_on_failure: bool = False,
    ) -> builtins.list[Task]:
        plan = waiting.wait_any if until == "any" else waiting.wait_all
        return await self._result_of(plan(uids, timeout, raise_on_failure))

    async def watch(self, uid: str, timeout: float | None = None) -> AsyncIterator[Task]:
        async with aclosing(self._told(Course(waiting.watch(uid, timeout)))) as tasks:
            async for task in tasks:
                yield task

    async def watch_many(self, uids: Sequence[str], timeout: float | None = None, every: float = 1.0) -> AsyncIterator[Task]:
        async with aclosing(self._told(Course(waiting.watch_many(uids, timeout, every)))) as tasks:
            async for task in tasks:
                yield task

    # ------------------------------------------------------------------ steering

    async def cancel(self, uid: str, stop_tracking: bool = False) -> Task:
        body = {"stop_tracking": True} if stop_tracking else {}
        return (await self._call("POST", task_path(uid, "/cancel"), body=body, repeatable=True)).task()

    async def poll(self, uid: str) -> None:
        await self._call("POST", task_path(uid, "/poll"), body={}, repeatable=True)

    async def resolve(self, uid: str, state: Literal["succeeded", "failed"], reason: str = "") -> Task:
        return (await self._call("POST", task_path(uid, "/resolve"), body={"state": state, "reason": reason})).task()

    async def delete(self, uid: str) -> None:
        await self._call("DELETE", task_path(uid))

    # ------------------------------------------------------------------ history and callbacks

    async def cursor(self) -> int:
        return int((await self._object("GET", "/v1/tasks", query=[("page_size", 1)])).get("cursor") or 0)

    async def events(
        self, uid: str | None = None, after: int = 0, follow: bool = False, progress: bool = False
    ) -> AsyncIterator[Event]:
        path = "/v1/events" if uid is None else task_path(uid, "/events")
        if progress:  # without it any number may follow, in turns; of streams the daemon gives one user so many
            async with aclosing(self._stream(f"{path}?progress=true", after)) as stream:
                async for event in stream:
                    yield event
        hold, survive = (LONGEST_HOLD, FOR_EVER) if follow else (0.0, None)
        while True:
            found, after = await self._page(after, hold, survive, path)
            for each in found:
                yield each
            if not found and not follow:
                return

    async def callbacks(
        self, uid: str | None = None, state: str | None = None, limit: int | None = None
    ) -> builtins.list[Callback]:
        if uid is not None:
            rows = members(await self._object("GET", task_path(uid, "/callbacks")), "callbacks")
            found = (Callback.read(row) for row in rows)
            return builtins.list(islice((each for each in found if state is None or each.state == state), limit))
        listed: builtins.list[Callback] = []
        async with aclosing(self._listed("/v1/callbacks", "callbacks", [("state", state)] if state else [])) as pages:
            while limit is None or len(listed) < limit:
                row = await anext(pages, None)
                if row is None:
                    break
                listed.append(Callback.read(row))
        return listed

    async def callback(self, callback_id: str) -> Callback:
        return Callback.read(await self._object("GET", callback_path(callback_id)))

    async def replay(self, callback_id: str) -> Callback:
        return Callback.read(await self._object("POST", callback_path(callback_id, "/replay"), body={}))

    async def ack(self, callback_id: str) -> Callback:
        return Callback.read(await self._object("POST", callback_path(callback_id, "/ack"), body={}, repeatable=True))

    async def explain(self, uid: str) -> Object:
        return await self._object("GET", task_path(uid, "/explain"))

    # ------------------------------------------------------------------ zones and the daemon itself

    async def zones(self) -> builtins.list[Object]:
        return members(await self._object("GET", "/v1/zones"), "zones")

    async def pause_zone(self, zone: str) -> Object:
        return await self._object("POST", zone_path(zone, "/pause"), body={}, repeatable=True)

    async def resume_zone(self, zone: str) -> Object:
        return await self._object("POST", zone_path(zone, "/resume"), body={}, repeatable=True)

    async def actions(self) -> builtins.list[Object]:
        return members(await self._object("GET", "/v1/actions"), "actions")

    async def info(self) -> Object:
        return await self._object("GET", "/v1/info")

    async def configuration(self) -> Object:
        return await self._object("GET", "/v1/config")

    async def recent_log(self) -> builtins.list[str]:
        return [str(line) for line in (await self._object("GET", "/v1/log")).get("lines") or ()]

    async def check_store(self) -> Object:
        return await self._object("GET", "/v1/check")

    async def metrics(self) -> str:
        return (await self._call("GET", "/metrics", headers={"Accept": "text/plain"})).body.decode()

    async def ping(self) -> bool:
        return bool((await self._call("GET", "/ping")).json() == "pong")

    async def healthz(self) -> bool:
        return (await self._send("GET", "/healthz", {}, None, 0.0)).status == 200

    async def readyz(self) -> bool:
        return (await self._send("GET", "/readyz", {}, None, 0.0)).status == 200

    async def post_legacy(self, body: Mapping[str, Any]) -> Any:
        return (await self._call("POST", "/", body=body, repeatable=True)).json()

    # ------------------------------------------------------------------ inside

    async def _told(self, course: Course[Any]) -> AsyncGenerator[Task, None]:
        """As `waiting.told`."""
        step = course.step()
        while step is not None:
            if isinstance(step, Task):
                yield step
                step = course.step()
            else:
                step = course.step(await self._ask(step))

    async def _result_of(self, plan: Plan[Result]) -> Result:
        course = Course(plan)
        async with aclosing(self._told(course)) as tasks:
            async for _ in tasks:
                pass
        return course.result

    async def _ask(self, question: Question) -> Any:
        if isinstance(question, Look):
            return await self._get(question.uid, question.wait, question.until, question.etag, question.survive)
        if isinstance(question, Latest):
            return await self.cursor()
        try:
            return await self._page(question.cursor, question.hold, question.survive)
        except RequestRefused as refusal:
            return waiting.nothing_retained(refusal)

    @asynccontextmanager
    async def _turn(self, seconds: float) -> AsyncGenerator[float, None]:
        """For how many of these seconds the daemon may hold the request: none if all places were taken for so long."""
        end = time.monotonic() + seconds
        placed = False
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                placed = await self._held.acquire()
        try:
            yield max(0.0, end - time.monotonic()) if placed else 0.0
        finally:
            if placed:
                self._held.release()

    async def _get(
        self, uid: str, wait: float | None, until: str | None, etag: int | str | None, survive: float | None
    ) -> Task | None:
        async with self._turn(wait) if wait else nullcontext(wait) as hold:
            query, headers = look(hold, until, etag)
            answer = await self._call("GET", task_path(uid), query=query, headers=headers, hold=hold or 0.0, survive=survive)
        return None if answer.status == 304 else answer.task()

    async def _page(
        self, after: int, hold: float, survive: float | None, path: str = "/v1/events"
    ) -> tuple[builtins.list[Event], int]:
        async with self._turn(hold) if hold else nullcontext(hold) as held:
            query = [("after", after), ("wait", f"{held:.4g}")]
            return events_of(await self._object("GET", path, query=query, hold=held, survive=survive), after)

    async def _stream(self, target: str, after: int) -> AsyncGenerator[Event, None]:
        """As `stream.follow`."""
        outage = Outage(FOR_EVER, patient=True)
        while True:
            headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
            blocks, rest, pause = Blocks(), b"", AGAIN
            try:
                async with aclosing(over_tornado.pieces(self.unix_socket, target, headers, SILENCE)) as pieces:
                    async for piece in pieces:
                        if outage.troubled:
                            outage.over()
                            outage = Outage(FOR_EVER, patient=True)
                        *lines, rest = (rest + piece).split(b"\n")
                        for line in lines:
                            seq, event = blocks.read(line) or (0, None)
                            after = max(after, seq)
                            if event is not None:
                                yield event
            except RequestRefused as refusal:
                pause = outage.after_refusal(refusal, harmless=True)
            except (DaemonUnreachable, AnswerUnknown) as error:
                pause = outage.after_break(error, harmless=True)
            await asyncio.sleep(pause)

    async def _listed(self, path: str, name: str, query: builtins.list[tuple[str, Any]]) -> AsyncGenerator[Object, None]:
        token: Any = None
        while True:
            page = await self._object("GET", path, query=query + ([("page_token", token)] if token else []))
            for each in members(page, name):
                yield each
            token = page.get("next_page_token")
            if not token:
                return

    async def _object(self, method: str, path: str, **options: Any) -> Object:
        return (await self._call(method, path, **options)).object()

    async def _call(
        self,
        method: str,
        path: str,
        *,
        query: Sequence[tuple[str, Any]] = (),
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        repeatable: bool | None = None,
        hold: float = 0.0,
        survive: float | None = None,
    ) -> Answer:
        """As `Caller.call`."""
        sent, data = encode(headers, body)
        harmless = method == "GET" if repeatable is None else repeatable
        outage = Outage(self._timeout if survive is None else survive, patient=survive is not None)
        while True:
            try:
                answer = await self._send(method, target_of(path, query), sent, data, hold)
                refusal = refusal_of(answer)
                if refusal is None:
                    outage.over()
                    return answer
                pause = outage.after_refusal(refusal, harmless)
            except (DaemonUnreachable, AnswerUnknown) as error:
                pause = outage.after_break(error, harmless)
            await asyncio.sleep(pause)

    async def _send(self, method: str, target: str, headers: Mapping[str, str], body: bytes | None, hold: float) -> Answer:
        async with nullcontext() if hold else self._at_once:
            return await over_tornado.request(self.unix_socket, method, target, headers, body, self._timeout + hold)
