"""The old surface, kept for ever: two routes that answer byte for byte what the service before this one answered."""

from task_daemon.api import hot
from task_daemon.api.base import Handler


class Ping(Handler):
    lenient = True

    async def get(self) -> None:
        self.reply(await hot.ping(self.api, self.caller, b"", None))


class Register(Handler):
    lenient = True

    async def post(self) -> None:
        self.reply(await hot.register_old(self.api, self.caller, self.body(), None))
