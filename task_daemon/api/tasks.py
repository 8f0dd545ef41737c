"""Tasks: registering, listing, looking, waiting, changing."""

import asyncio

from msgspec.structs import replace

from task_daemon.api import bodies, hot, redaction
from task_daemon.api.base import BATCH_LIMIT, LONGEST_WAIT, Handler
from task_daemon.api.parameters import page_token, refuse
from task_daemon.core.errors import Forbidden
from task_daemon.core.model import Query, State, Task

PAGE = 50
LARGEST_PAGE = 500


class Tasks(Handler):
    """`/v1/tasks`"""

    post_parameters = ("validate_only",)
    get_parameters = (
        *("state", "done", "zone", "action", "id", "region_task_id", "label", "owner", "created_after"),
        *("page_size", "page_token"),
    )

    async def post(self) -> None:
        if self.query.flag("validate_only"):
            valid = self.manager.validate([bodies.registration(self.body())], self.caller.owner)
            self.answer(self.manager.fresh(valid)[0][0])
        elif (wait := self.preferred_wait()) is None:
            self.reply(await hot.register(self.api, self.caller, self.body(), self.idempotency_key()))
        else:
            await self._register_and_wait(wait)

    async def _register_and_wait(self, wait: float) -> None:
        registration = bodies.registration(self.body())
        (added,) = await self.manager.register([registration], self.caller.owner, self.idempotency_key())
        self.set_header("Location", f"/v1/tasks/{added.task.uid}")
        if added.replayed:
            self.set_header("Idempotency-Replayed", "true")
        self.set_header("Preference-Applied", f"wait={wait:.0f}")
        task = await self.unless_hung_up(self.manager.wait(added.task.uid, wait))
        if not task.done:
            self.set_retry_after(self.manager.retry_after(task))
        self.answer(await self.manager.view(task), 200 if added.replayed or task.done else 202)

    async def get(self) -> None:
        query = self._query()
        bound = replace(query, limit=0)
        page = await self.manager.find(replace(query, before_uid=self.query.after(bound)))
        views = await self.manager.views(page.tasks)
        shown = [self.shown(task, view) for task, view in zip(page.tasks, views, strict=True)]
        token = page_token(bound, page.tasks[-1].uid) if page.more and page.tasks else None
        self.answer({"tasks": shown, "next_page_token": token, "cursor": page.cursor})

    def _query(self) -> Query:
        query = self.query
        return Query(
            states=query.choices("state", [state.value for state in State]),
            done=query.flag("done"),
            zone=query.text("zone"),
            action=query.text("action"),
            id=query.text("id"),
            region_task_id=query.text("region_task_id"),
            labels=query.pairs("label"),
            owner_uid=self._owner(),
            created_after=query.time("created_after"),
            limit=query.integer("page_size", 1, LARGEST_PAGE) or PAGE,
        )

    def _owner(self) -> int | None:
        asked, caller = self.query.integer("owner", 0, 2**32 - 1), self.caller
        if caller.sees_all:
            return asked
        if asked not in (None, caller.peer.uid):
            text = f"cannot list the tasks of user {asked}: you are user {caller.peer.uid} and see your own; readers see all"
            raise Forbidden(text)
        return caller.peer.uid


class Batch(Handler):
    """`/v1/tasks:batch`"""

    body_limit = BATCH_LIMIT

    async def post(self) -> None:
        raw = self.body()
        registrations = await asyncio.to_thread(bodies.batch, raw) if len(raw) > hot.LARGEST_BODY else bodies.batch(raw)
        self.reply(await hot.register_all(self.api, self.caller, registrations, self.idempotency_key()))


class One(Handler):
    """`/v1/tasks/{uid}`"""

    get_parameters = ("wait", "until")

    async def get(self, uid: str) -> None:
        wait = self.query.number("wait", 0, 0, LONGEST_WAIT)
        change = self.query.choice("until", ("change", "done")) == "change"
        task = await self.task(uid)
        if wait:
            task = await self.unless_hung_up(self.manager.wait(uid, wait, self._known(task) if change else None))
        self.set_header("ETag", f'"{task.revision}"')
        if not task.done:
            self.set_retry_after(self.manager.retry_after(task))
        if self.check_etag_header():  # the client has this revision
            self.set_status(304)
            return
        self.answer(self.shown(task, await self.manager.view(task)))

    def _known(self, task: Task) -> int:
        """The revision that the client has."""
        header = self.request.headers.get("If-None-Match")
        if header is None:
            return task.revision
        text = header.strip().removeprefix("W/").strip('"')
        if not (text.isascii() and text.isdigit() and len(text) < 20):
            refuse("until", f'needs an If-None-Match like "{task.revision}", a task\'s ETag, not {header}')
        return int(text)

    async def delete(self, uid: str) -> None:
        await self.own_task(uid)
        await self.manager.delete(uid)
        self.set_status(204)


class Cancel(Handler):
    async def post(self, uid: str) -> None:
        body = bodies.small(self.body(), bodies.Cancel)
        await self.own_task(uid)
        task = await self.manager.cancel(uid, body.stop_tracking)
        if not task.done:
            self.set_header("Location", f"/v1/tasks/{uid}")
            self.set_retry_after(self.manager.retry_after(task))
        self.answer(await self.manager.view(task), 200 if task.done else 202)


class Poll(Handler):
    async def post(self, uid: str) -> None:
        bodies.small(self.body(), bodies.Nothing)
        await self.own_task(uid)
        task = await self.manager.poll_now(uid)
        self.set_retry_after(self.manager.retry_after(task))
        self.answer(await self.manager.view(task), 202)


class Resolve(Handler):
    async def post(self, uid: str) -> None:
        body = bodies.small(self.body(), bodies.Resolve)
        await self.own_task(uid)
        task = await self.manager.resolve(uid, body.final, body.reason)
        self.answer(await self.manager.view(task))


class Explain(Handler):
    async def get(self, uid: str) -> None:
        task = await self.task(uid)
        view = await self.manager.explain(uid)
        self.answer(view if self.caller.sees_all_of(task.owner.uid) else redaction.explanation(view))
