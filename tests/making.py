"""Making the nouns of the house for tests: short, with every member that a test cares about given by name."""

from typing import Any

from msgspec import json

from task_daemon.core.model import Mode, Owner, Task
from task_daemon.core.uids import new_uid
from task_daemon.core.view import Shown

NOW = 1_800_000_000.0


def a_task(**members: Any) -> Task:
    """A tracked task as it is right after its registration."""
    now = members.get("created_at", NOW)
    timeout = members.get("timeout", 43_200.0)
    defaults: dict[str, Any] = {
        "uid": new_uid(now),
        "id": "disk-1",
        "action": "backup",
        "zone": "z1",
        "mode": Mode.TRACK,
        "owner": Owner(1000, 1000, 4711),
        "created_at": now,
        "timeout": timeout,
        "deadline_at": now + timeout,
    }
    return Task(**(defaults | members))


def members(view: Shown) -> dict[str, Any]:
    """A view as whoever reads its JSON sees it."""
    seen: dict[str, Any] = json.decode(json.encode(view))
    return seen
