"""Which kinds of backends there are: the built-in ones, and those of installed plug-ins.

A plug-in is a distribution with an entry point in the group `task_daemon.backends` whose object is a `Family` (see
`core/ports.py`); it is imported only when a zone names a kind that is not built in. What no zone names is never imported.
"""

import logging
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points

from task_daemon.core.errors import ConfigError
from task_daemon.core.ports import Family

log = logging.getLogger("task_daemon.backends")

GROUP = "task_daemon.backends"
BUILT_IN = {name: f"task_daemon.backends.{name}" for name in ("process", "storage", "simulated")}
"""Kinds, and the modules whose FAMILY they are."""


def find_family(name: str) -> Family:
    """The family that the configuration calls `name`.

    Raises ConfigError: no such kind, or its plug-in cannot be used; the message says which and why.
    """
    if name in BUILT_IN:
        built_in: Family = import_module(BUILT_IN[name]).FAMILY
        return built_in
    found = [point for point in entry_points(group=GROUP) if point.name == name]
    if not found:
        known = ", ".join(known_families())
        raise ConfigError([f"cannot use backend {name!r}: there is no such kind; known: {known}"])
    if len(found) > 1:
        owners = ", ".join(sorted(_origin(point) for point in found))
        raise ConfigError([f"cannot use backend {name!r}: several plug-ins offer it ({owners}); keep one of them installed"])
    return _load(found[0])


def known_families() -> list[str]:
    """Names of all kinds, plug-ins included; imports none of them."""
    return sorted(BUILT_IN.keys() | {point.name for point in entry_points(group=GROUP)})


def _load(point: EntryPoint) -> Family:
    try:
        family = point.load()
    except Exception as error:  # whatever a stranger's module does when it is imported
        cause = f"plug-in {_origin(point)} ({point.value}) cannot be loaded: {type(error).__name__}: {error}"
        raise ConfigError([f"cannot use backend {point.name!r}: {cause}"]) from error
    if not isinstance(family, Family) or family.name != point.name:
        cause = f"plug-in {_origin(point)} ({point.value}) must be a task_daemon.core.ports.Family named {point.name!r}"
        raise ConfigError([f"cannot use backend {point.name!r}: {cause}"])
    log.info("backend %s comes from plug-in %s", point.name, _origin(point))
    return family


def _origin(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value
