"""The daemon's answers as frozen records.

Reading is tolerant: members this version does not know stay available in `raw`, missing ones become None. Times are
aware datetimes (UTC), durations seconds, sizes bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Self

FINAL = frozenset({"succeeded", "failed", "cancelled", "lost"})


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the work is. None = not known yet, which is never the same as 0."""

    percent: float | None = None
    done: int | None = None
    total: int | None = None
    unit: str | None = None
    rate: float | None = None
    eta_seconds: float | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class TaskError:
    """Why a task did not succeed. `kind` is a stable word: backend, timeout, lost, start-refused, zone-removed, internal."""

    kind: str = "internal"
    message: str = ""
    backend: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Owner:
    uid: int | None = None
    gid: int | None = None
    pid: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One long operation being watched, as it was when the daemon answered."""

    uid: str
    id: str
    action: str
    zone: str
    state: str
    done: bool
    revision: int = 0
    mode: str | None = None
    job: str | None = None
    region_task_id: str | int | None = None
    params: dict[str, Any] | None = None
    labels: dict[str, str] = field(default_factory=dict)
    callback: dict[str, Any] | None = None
    callbacks: dict[str, int] = field(default_factory=dict)
    owner: Owner = Owner()
    progress: Progress = Progress()
    error: TaskError | None = None
    flags: tuple[str, ...] = ()
    size: int | None = None
    timeout: float | None = None
    poll_interval: float | None = None
    cancellable: bool = False
    created_at: datetime | None = None
    started_at: datetime | None = None
    updated_at: datetime | None = None
    finished_at: datetime | None = None
    deadline_at: datetime | None = None
    last_polled_at: datetime | None = None
    last_progress_at: datetime | None = None
    next_poll_at: datetime | None = None
    raw: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def succeeded(self) -> bool:
        return self.state == "succeeded"

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> Self:
        known = _known(cls, raw)
        known.setdefault("uid", "")
        for name in ("id", "action", "zone", "state"):
            known[name] = str(known.get(name, ""))
        known["done"] = bool(known.get("done", known["state"] in FINAL))
        known["flags"] = tuple(known.get("flags", ()))
        for name, kind in (("progress", Progress), ("owner", Owner), ("error", TaskError)):
            if name in known:
                known[name] = kind(**_known(kind, known[name]))
        return cls(**known, raw=dict(raw))


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One row of the history. `seq` is the cursor to go on from."""

    seq: int = 0
    uid: str = ""
    task_seq: int = 0
    type: str = ""
    time: datetime | None = None
    detail: dict[str, Any] = field(default_factory=dict)
    raw: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> Self:
        return cls(**_known(cls, raw), raw=dict(raw))


@dataclass(frozen=True, slots=True, kw_only=True)
class Callback:
    """One callback to be made, with what came of it. States: pending, delivered, dead, acked."""

    id: str = ""
    uid: str = ""
    type: str = ""
    state: str = ""
    method: str = ""
    url: str = ""
    attempts: int = 0
    created_at: datetime | None = None
    next_at: datetime | None = None
    tries: tuple[dict[str, Any], ...] = ()
    raw: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> Self:
        known = _known(cls, raw)
        known["tries"] = tuple(known.get("tries", ()))
        return cls(**known, raw=dict(raw))


def _known(kind: type[Any], raw: Any) -> dict[str, Any]:
    """The members that `kind` has and the answer gives; null counts as not given. Times are decoded."""
    if not isinstance(raw, Mapping):
        return {}
    names, times = _MEMBERS[kind]
    found = {name: value for name, value in raw.items() if value is not None and name in names}
    for name in times & found.keys():
        found[name] = _time(found[name])
    return found


def _time(text: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None


def _members(kind: type[Any]) -> tuple[frozenset[str], frozenset[str]]:
    """All that answers may give, and those that are times."""
    names = frozenset(each.name for each in fields(kind)) - {"raw"}
    return names, frozenset(name for name in names if name.endswith("_at") or name == "time")


_MEMBERS = {kind: _members(kind) for kind in (Progress, TaskError, Owner, Task, Event, Callback)}
