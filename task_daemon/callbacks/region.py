"""What the region is told, as data: a table of routes that a deployment can replace, and the words of its data model."""

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from msgspec import Struct

from task_daemon.core.errors import ConfigError
from task_daemon.core.model import Task
from task_daemon.core.ports import Call

ANY = "*"
OUTCOMES = ("finished", "failed", "size")
METHODS = ("PUT", "POST", "PATCH", "DELETE")
ALWAYS_KNOWN = ("id", "uid", "zone", "action")
PLACEHOLDERS = (*ALWAYS_KNOWN, "region_task_id", "size_mib", "error")
MIB = 1024 * 1024

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_ABSENT = object()


class Route(Struct, frozen=True, forbid_unknown_fields=True):
    """One call: for tasks of `action` (`*`: any) with `outcome`. Path and the strings in `body` may hold placeholders.

    A route that uses `{region_task_id}` is left out for tasks that have none. A member of `body` whose value is exactly
    one placeholder is left out where that is not known; otherwise the value keeps its type.
    """

    action: str
    outcome: str
    method: str
    path: str
    body: Any = {}


DEFAULT_ROUTES: tuple[Route, ...] = (
    Route("clone_snapshot", "finished", "PUT", "/disks/{id}", {"disk": {"status": "{disk_ready}"}}),
    Route("clone_snapshot", "failed", "PUT", "/disks/{id}", {"disk": {"status": "{clone_failed}"}}),
    Route("restore_backup", "finished", "POST", "/disks/{id}/notify-restore-mebs-backup-succ", {"disk": {}}),
    Route("restore_backup", "failed", "POST", "/disks/{id}/notify-restore-mebs-backup-fail"),
    Route("backup", "size", "PUT", "/mebs_backups/{id}", {"mebs_backup": {"size": "{size_mib}"}}),
    Route("backup", "finished", "PUT", "/mebs_backups/{id}", {"mebs_backup": {"status": "{backup_ready}", "size": "{size_mib}"}}),
    Route("backup", "failed", "PUT", "/mebs_backups/{id}", {"mebs_backup": {"status": "{backup_failed}"}}),
    Route("delete_backup", "finished", "POST", "/mebs_backups/{id}/notify-delete-succ", {"mebs_backup": {}}),
    Route("delete_backup", "failed", "POST", "/mebs_backups/{id}/notify-delete-fail"),
    Route(ANY, "finished", "POST", "/tasks/{region_task_id}"),
    Route(
        ANY,
        "failed",
        "POST",
        "/tasks/{region_task_id}",
        {"__status__": "error", "__reason__": "region_mebsd task failed"},
    ),
)
"""The calls of the service this project replaces."""

DEFAULT_WORDS: Mapping[str, Any] = {
    "disk_ready": "ready",
    "clone_failed": "clone_mebs_snapshot_failed",
    "backup_ready": "ready",
    "backup_failed": "backup_failed",
}


class RouteTable:
    """The RegionCalls port. `words` are laid over the default ones. Raises ConfigError with every mistake of the table."""

    def __init__(self, routes: Sequence[Route] = DEFAULT_ROUTES, words: Mapping[str, Any] = DEFAULT_WORDS) -> None:
        self._words = {**DEFAULT_WORDS, **words}
        self._routes = tuple(routes)
        mistakes = find_mistakes(self._routes, self._words)
        if mistakes:
            raise ConfigError(mistakes)

    def __call__(self, task: Task, outcome: str, error: str | None) -> Sequence[Call]:
        values = {**self._words, **_facts(task, outcome, error)}
        return [
            Call(route.method, _path(route.path, values), _fill(route.body, values))
            for route in self._routes
            if route.action in (task.action, ANY) and route.outcome == outcome and _applies(route, task)
        ]


def find_mistakes(routes: Sequence[Route], words: Mapping[str, Any]) -> list[str]:
    """A sentence for each thing in the table that cannot work."""
    mistakes = [
        f"cannot use the word {name!r} of [region.words]: it is the name of a placeholder; accepted is any other name"
        for name in words
        if name in PLACEHOLDERS
    ]
    for number, route in enumerate(routes, 1):
        mistakes += [f"cannot use route {number} of [[region.routes]]: {cause}" for cause in _causes(route, words)]
    return mistakes


def _causes(route: Route, words: Mapping[str, Any]) -> list[str]:
    causes = []
    if not route.action:
        causes.append('its action is empty; accepted are the name of an action and "*"')
    if route.outcome not in OUTCOMES:
        causes.append(f"its outcome is {route.outcome!r}; accepted are {', '.join(OUTCOMES)}")
    if route.method not in METHODS:
        causes.append(f"its method is {route.method!r}; accepted are {', '.join(METHODS)}")
    bare = _PLACEHOLDER.sub("x", route.path)
    if not re.fullmatch(r"/[!\"$-~]*", bare):
        causes.append(f"its path is {route.path!r}; accepted is a path that begins with / and holds printable ASCII without #")
    known = {*PLACEHOLDERS, *words}
    in_path = _PLACEHOLDER.findall(route.path)
    causes += [
        f"{{{name}}} is no placeholder; accepted are {', '.join(sorted(known))}"
        for name in dict.fromkeys([*in_path, *_names(route.body)])
        if name not in known
    ]
    causes += [
        f"{{{name}}} is not always known, so it cannot be in the path; accepted is a place in the body"
        for name in ("size_mib", "error")
        if name in in_path
    ]
    return causes


def _applies(route: Route, task: Task) -> bool:
    return task.region_task_id is not None or "region_task_id" not in (*_PLACEHOLDER.findall(route.path), *_names(route.body))


def _facts(task: Task, outcome: str, error: str | None) -> dict[str, Any]:
    told_before = outcome == "finished" and task.size_told
    return {
        "id": task.id,
        "uid": task.uid,
        "zone": task.zone,
        "action": task.action,
        "region_task_id": _ABSENT if task.region_task_id is None else task.region_task_id,
        "size_mib": _ABSENT if task.size is None or told_before else task.size // MIB,
        "error": _ABSENT if error is None else error,
    }


def _names(body: Any) -> list[str]:
    """Placeholders of a body, at any depth."""
    if isinstance(body, str):
        return _PLACEHOLDER.findall(body)
    if isinstance(body, dict):
        return [name for value in body.values() for name in _names(value)]
    if isinstance(body, list | tuple):
        return [name for value in body for name in _names(value)]
    return []


def _fill(body: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(body, str):
        whole = _PLACEHOLDER.fullmatch(body)
        return values[whole[1]] if whole else _PLACEHOLDER.sub(lambda found: _text(values[found[1]]), body)
    if isinstance(body, dict):
        return {name: filled for name, value in body.items() if (filled := _fill(value, values)) is not _ABSENT}
    if isinstance(body, list | tuple):
        return [filled for value in body if (filled := _fill(value, values)) is not _ABSENT]
    return body


def _path(path: str, values: Mapping[str, Any]) -> str:
    return _PLACEHOLDER.sub(lambda found: _segment(_text(values[found[1]])), path)


def _segment(text: str) -> str:
    """One step of a path: an id with slashes, or one that is only dots, must not lead elsewhere."""
    return text.replace(".", "%2E") if text in (".", "..") else quote(text, safe="")


def _text(value: Any) -> str:
    return "" if value is _ABSENT else str(value)
