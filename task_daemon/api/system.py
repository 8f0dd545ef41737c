"""The daemon itself: what it is, whether it lives, whether it can take work.

What only some daemons are ever asked for is loaded when it is asked for: a tenth of the time to start.
"""

import asyncio
import os
from importlib import import_module

from task_daemon.api import redaction
from task_daemon.api.base import Handler
from task_daemon.core.view import rfc3339


class Info(Handler):
    async def get(self) -> None:
        daemon, caller, phase = self.api.daemon, self.caller, self.api.daemon.phase()
        status = dict(self.manager.status())
        self.answer(
            {
                "version": daemon.version,
                "versions": dict(daemon.versions),
                "pid": os.getpid(),
                "boot_id": daemon.boot_id,
                "started_at": rfc3339(daemon.started_at),
                "phase": phase.name,
                "reason": phase.reason or None,
                "features": list(daemon.features),
                "limits": dict(daemon.limits),
                "durability": daemon.durability,
                "you": {"uid": caller.peer.uid, "gid": caller.peer.gid, "pid": caller.peer.pid, "roles": caller.roles},
                "status": status if caller.admin else redaction.status(status),
            }
        )


class Health(Handler):
    """200 as long as the event loop turns."""

    async def get(self) -> None:
        self.answer({"status": "ok"})


class Ready(Handler):
    """200 if work can be taken; else the problem that a registration would get now."""

    async def get(self) -> None:
        unready = self.api.unready(new_work=True)
        if unready is not None:
            raise unready
        self.answer({"status": "ready"})


class Metrics(Handler):
    also_accepts = "text/plain"

    async def get(self) -> None:
        await asyncio.to_thread(import_module, "task_daemon.api.metrics")  # takes too long for the event loop
        from task_daemon.api.metrics import CONTENT_TYPE, Families

        families = Families(self.api, await self.manager.backlog())
        self.set_header("Content-Type", CONTENT_TYPE)
        self.finish(await asyncio.to_thread(families.text))


class OpenApi(Handler):
    async def get(self) -> None:
        if "openapi" not in self.settings:
            from task_daemon.api.openapi import document

            self.settings["openapi"] = document(self.settings["routes"], self.api.daemon.version)
        self.answer(self.settings["openapi"])
