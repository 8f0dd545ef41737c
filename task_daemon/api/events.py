"""The history: of one task, and of all of them as a feed to be followed."""

import asyncio
from collections.abc import Sequence

from task_daemon.api.base import LONGEST_WAIT, Handler
from task_daemon.core.errors import Gone, NotFound
from task_daemon.core.model import Event
from task_daemon.core.view import event_view

PAGE = 100
LARGEST_PAGE = 500
SEQ_MAX = 2**63 - 1


class EventHandler(Handler):
    get_parameters = ("after", "wait", "page_size")

    def asked(self) -> tuple[int, int, float]:
        """After which sequence, how many, and how many seconds to wait for the first one."""
        after = self.query.integer("after", 0, SEQ_MAX) or 0
        return after, self.query.integer("page_size", 1, LARGEST_PAGE) or PAGE, self.query.number("wait", 0, 0, LONGEST_WAIT)

    def page(self, events: Sequence[Event], cursor: int) -> None:
        """`cursor` is the `after` of the next page."""
        self.answer({"events": [event_view(event) for event in events], "cursor": cursor})


class OfTask(EventHandler):
    async def get(self, uid: str) -> None:
        after, limit, wait = self.asked()
        await self.task(uid)
        events = await self.unless_hung_up(self.manager.events(after, limit, uid, wait))
        self.page(events, events[-1].seq if events else after)


class Feed(EventHandler):
    """`/v1/events`, page by page. Events of tasks that the caller may not see are left out, and the cursor moves past them."""

    async def get(self) -> None:
        after, limit, wait = self.asked()
        now = asyncio.get_running_loop().time
        end = now() + wait
        while True:
            events = await self.unless_hung_up(self.manager.events(after, limit, wait=max(0.0, end - now())))
            after = events[-1].seq if events else after
            visible = await self._visible(events)
            if visible or not events:
                break
        self.page(visible, after)

    async def _visible(self, events: Sequence[Event]) -> Sequence[Event]:
        if self.caller.sees_all:
            return events
        seen: dict[str, bool] = {}
        for uid in {event.uid for event in events}:
            try:
                await self.task(uid)
                seen[uid] = True
            except (NotFound, Gone):
                seen[uid] = False
        return [event for event in events if seen[event.uid]]
