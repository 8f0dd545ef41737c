"""Zones and the actions they offer."""

from task_daemon.api import bodies
from task_daemon.api.base import Handler


class Zones(Handler):
    async def get(self) -> None:
        self.answer({"zones": self.manager.zones()})


class Pause(Handler):
    async def post(self, zone: str) -> None:
        bodies.small(self.body(), bodies.Nothing)
        self.answer(await self.manager.pause(zone, True))


class Resume(Handler):
    async def post(self, zone: str) -> None:
        bodies.small(self.body(), bodies.Nothing)
        self.answer(await self.manager.pause(zone, False))


class Actions(Handler):
    async def get(self) -> None:
        self.answer({"actions": self.manager.actions()})
