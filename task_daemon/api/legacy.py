"""The old surface, kept for ever: two routes that answer byte for byte what the service before this one answered."""

from task_daemon.api import bodies
from task_daemon.api.base import Handler


class Ping(Handler):
    lenient = True

    async def get(self) -> None:
        self.answer("pong")


class Register(Handler):
    lenient = True

    async def post(self) -> None:
        registration = bodies.old_registration(self.body())
        (added,) = await self.manager.register([registration], self.caller.owner)
        self.set_header("Location", f"/v1/tasks/{added.task.uid}")
        self.answer("")
