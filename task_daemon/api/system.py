"""The daemon itself: what it is, whether it lives, whether it can take work."""

import os

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
