"""What somebody who helps needs to see: the configuration in force, the latest log, whether the store is sound."""

from task_daemon.api.base import Handler


class Configuration(Handler):
    """As TOML, secrets hidden; `file` is null when the built-in defaults are in force."""

    async def get(self) -> None:
        daemon = self.api.daemon
        self.answer({"file": daemon.config_file, "toml": daemon.configuration})


class Log(Handler):
    """The latest lines, oldest first, wherever the log goes besides."""

    async def get(self) -> None:
        self.answer({"lines": list(self.api.daemon.recent_log())})


class Check(Handler):
    async def get(self) -> None:
        self.answer(await self.unless_hung_up(self.manager.check_store()))
