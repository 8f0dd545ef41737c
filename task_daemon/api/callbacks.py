"""The mailbox: what was to be told to somebody, whether it arrived, and what can be done when it did not."""

from typing import Any

from task_daemon.api import bodies, redaction
from task_daemon.api.base import Handler
from task_daemon.api.parameters import page_token
from task_daemon.core.errors import NotFound
from task_daemon.core.model import Delivery, DeliveryState
from task_daemon.core.view import delivery_view

PAGE = 50
LARGEST_PAGE = 500


class CallbackHandler(Handler):
    def view(self, delivery: Delivery) -> dict[str, Any]:
        """A callback as the caller may see it."""
        view = delivery_view(delivery)
        return view if self.caller.sees_all_of(delivery.owner_uid) else redaction.delivery(view)

    async def seen(self, delivery_id: str) -> Delivery:
        """Raises NotFound for callbacks of others, too."""
        delivery = await self.manager.callback(delivery_id)
        if not self.caller.sees(delivery.owner_uid):
            raise NotFound(f"cannot show callback {delivery_id}: no callback of that id")
        return delivery

    async def own(self, delivery_id: str) -> None:
        """Raises Forbidden, NotFound."""
        delivery = await self.seen(delivery_id)
        self.caller.check_change(delivery.owner_uid, f"callback {delivery_id}")


class OfTask(CallbackHandler):
    async def get(self, uid: str) -> None:
        await self.task(uid)
        deliveries = await self.manager.callbacks_of(uid)
        self.answer({"callbacks": [self.view(delivery) for delivery in deliveries]})


class Callbacks(CallbackHandler):
    get_parameters = ("state", "page_size", "page_token")

    async def get(self) -> None:
        state = self.query.choice("state", [state.value for state in DeliveryState])
        limit = self.query.integer("page_size", 1, LARGEST_PAGE) or PAGE
        owner = None if self.caller.sees_all else self.caller.peer.uid
        bound = ("callbacks", state, owner)
        found = await self.manager.callbacks(state, self.query.after(bound), limit + 1, owner)
        page = found[:limit]
        token = page_token(bound, page[-1].id) if len(found) > limit else None
        self.answer({"callbacks": [self.view(delivery) for delivery in page], "next_page_token": token})


class One(CallbackHandler):
    async def get(self, delivery_id: str) -> None:
        self.answer(self.view(await self.seen(delivery_id)))


class Replay(CallbackHandler):
    async def post(self, delivery_id: str) -> None:
        bodies.small(self.body(), bodies.Nothing)
        await self.own(delivery_id)
        self.answer(self.view(await self.manager.replay(delivery_id)), 202)


class Acknowledge(CallbackHandler):
    async def post(self, delivery_id: str) -> None:
        bodies.small(self.body(), bodies.Nothing)
        await self.own(delivery_id)
        self.answer(self.view(await self.manager.acknowledge(delivery_id)))
