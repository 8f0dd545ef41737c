"""What readers see of the work of others: how it goes, but neither what it was asked to do nor whom it tells."""

from typing import Any

from msgspec.structs import replace

from task_daemon.core.view import Shown, TaskView

FLAG = "redacted"
PENDING = "its callbacks to be accepted"


def task(view: Shown) -> TaskView:
    """Without `params`, `callback`, the backend's own details of an error and the registrant's `x_...` members."""
    if isinstance(view, dict):
        view = TaskView(**{name: value for name, value in view.items() if not name.startswith("x_")})
    error = None if view.error is None else view.error | {"backend": None}
    return replace(view, params=None, callback=None, error=error, flags=(*view.flags, FLAG))


def delivery(view: dict[str, Any]) -> dict[str, Any]:
    """Without the receiver and its words. Errors go too, because they name the receiver."""
    tries = [each | {"error": None, "answer": None} for each in view["tries"]]
    return view | {"url": None, "tries": tries, FLAG: True}


def explanation(view: dict[str, Any]) -> dict[str, Any]:
    hidden = [delivery(each) | {"waits_for": None, "last_answer": None} for each in view["callbacks"]]
    told = any(each["state"] == "pending" for each in hidden)
    ended = view["next_poll_at"] is None and view["deadline_at"] is None
    return view | {"callbacks": hidden, "waiting_for": PENDING if ended and told else view["waiting_for"]}


def status(view: dict[str, Any]) -> dict[str, Any]:
    """The inner state without the names of receivers; how many are held stays."""
    return view | {"outbox": {name: value for name, value in view["outbox"].items() if name != "held"}}
