"""The history: of one task, and of all of them as a feed to be followed, page by page or as a stream."""

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack

from task_daemon.api import stream
from task_daemon.api.base import LONGEST_WAIT, Handler, HungUp
from task_daemon.api.parameters import refuse
from task_daemon.core.errors import CursorExpired, Gone, InvalidBody, NotFound, Refusal
from task_daemon.core.model import Event
from task_daemon.core.view import event_view
from task_daemon.tracking.feed import Follower

PAGE = 100
LARGEST_PAGE = 500
SEQ_MAX = 2**63 - 1
OWNERS_KNOWN = 10_000  # tasks of which one stream remembers whether its reader sees them


class EventHandler(Handler):
    get_parameters = ("after", "wait", "page_size", "progress")
    also_accepts = stream.CONTENT_TYPE
    _seen: dict[str, bool]

    @property
    def is_stream(self) -> bool:
        return stream.CONTENT_TYPE in self.request.headers.get("Accept", "")

    async def after(self) -> int:
        """The sequence above which events are asked for."""
        header = self.request.headers.get("Last-Event-ID") if self.is_stream else None
        if header is not None:
            text = header.strip()
            if not (text.isascii() and text.isdigit() and int(text[:20]) <= SEQ_MAX):
                sentence = f"must be the id of an event, a whole number, not {header[:40]!r}"
                raise InvalidBody(f"cannot use header Last-Event-ID: {sentence}", members=[("Last-Event-ID", sentence)])
            return int(text)
        if self.query.text("after") == "latest":
            return await self.manager.cursor()
        return self.query.integer("after", 0, SEQ_MAX) or 0

    def limit(self) -> int:
        return self.query.integer("page_size", 1, LARGEST_PAGE) or PAGE

    def wait(self) -> float:
        if self.query.flag("progress") is not None:
            refuse("progress", f"is for streams only: ask with Accept: {stream.CONTENT_TYPE}")
        return self.query.number("wait", 0, 0, LONGEST_WAIT)

    def page(self, events: Sequence[Event], cursor: int) -> None:
        """`cursor` is the `after` of the next page."""
        self.answer({"events": [event_view(event) for event in events], "cursor": cursor})

    async def visible(self, events: Sequence[Event]) -> Sequence[Event]:
        """Those of tasks that the caller may see."""
        if self.caller.sees_all:
            return events
        return [event for event in events if await self._sees(event.uid)]

    async def _sees(self, uid: str) -> bool:
        found = self._seen.get(uid)
        if found is None:
            try:
                await self.task(uid)
                found = True
            except (NotFound, Gone):
                found = False
            if len(self._seen) >= OWNERS_KNOWN:
                self._seen.clear()
            self._seen[uid] = found
        return found

    def prepare(self) -> None:
        self._seen = {}
        super().prepare()

    # ------------------------------------------------------------------ streams

    async def stream(self, uid: str | None = None) -> None:
        """Events, heartbeats, and with `progress=true` how far live tasks are, until the client hangs up or the daemon stops."""
        if self.query.text("wait") is not None:
            refuse("wait", "is for pages only: a stream waits by itself")
        after, limit, progress = await self.after(), self.limit(), self.query.flag("progress") or False
        with ExitStack() as stack:
            stack.enter_context(self.api.streams.one(self.caller.peer.uid))
            follower = stack.enter_context(self.manager.follow(after, uid, progress))
            try:
                await self.unless_hung_up(self._follow(follower, limit))
            except HungUp:
                return  # there is nobody to be told

    async def _follow(self, follower: Follower, limit: int) -> None:
        block = await self._next(follower, 0.0, limit)  # whatever is wrong with the request is told before the stream begins
        self.set_header("Content-Type", stream.CONTENT_TYPE)
        self.set_header("Cache-Control", "no-store")
        self.write(stream.COME_AGAIN)
        try:
            while True:
                self.write(block)
                await self.flush()
                if follower.stopped:
                    self.write(stream.DRAINING)
                    return
                block = await self._next(follower, stream.HEARTBEAT, limit)
        except (CursorExpired, Refusal) as refusal:  # after a new connection the reason is told
            self.write(f": {refusal.code}\n\n")

    async def _next(self, follower: Follower, seconds: float, limit: int) -> bytes:
        events, tasks = await follower.next(seconds, limit)
        visible = await self.visible(events)
        blocks = [stream.of_event(event) for event in visible]
        if events and (not visible or visible[-1] is not events[-1]):
            blocks.append(stream.of_cursor(follower.cursor))
        blocks += [stream.of_progress(task) for task in tasks if self.caller.sees(task.owner.uid)]
        return b"".join(blocks) or (stream.BEAT if seconds and not follower.stopped else b"")


class OfTask(EventHandler):
    """`/v1/tasks/{uid}/events`"""

    async def get(self, uid: str) -> None:
        await self.task(uid)
        if self.is_stream:
            await self.stream(uid)
            return
        after, limit, wait = await self.after(), self.limit(), self.wait()
        events = await self.unless_hung_up(self.manager.events(after, limit, uid, wait))
        self.page(events, events[-1].seq if events else after)


class Feed(EventHandler):
    """`/v1/events`. Events of tasks that the caller may not see are left out, and the cursor moves past them."""

    async def get(self) -> None:
        if self.is_stream:
            await self.stream()
            return
        after, limit, wait = await self.after(), self.limit(), self.wait()
        now = asyncio.get_running_loop().time
        end = now() + wait
        while True:
            events = await self.unless_hung_up(self.manager.events(after, limit, wait=max(0.0, end - now())))
            after = events[-1].seq if events else after
            visible = await self.visible(events)
            if visible or not events:
                break
        self.page(visible, after)
