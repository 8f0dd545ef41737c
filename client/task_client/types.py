"""The daemon's answers as frozen records.

Reading is tolerant: members this version does not know stay available in `raw`, missing ones become None. Times are
aware datetimes (UTC), durations seconds, sizes bytes.
"""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

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


class _Told:
    """What is known of a task as long as nobody has looked at its members: how to get at them."""

    __slots__ = ("_tell",)
    _tell: Callable[[], dict[str, Any]]

    if not TYPE_CHECKING:  # to which any name would be one of a task

        def __getattr__(self, name: str) -> Any:
            """A member, when it is first looked at: of most tasks that are told nobody looks at more than one or two."""
            if name not in Task.__dataclass_fields__:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            value = self._tell() if name == "raw" else _task_member(name, self.raw)
            object.__setattr__(self, name, value)
            return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Task(_Told):
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
        made = cls.__new__(cls)
        object.__setattr__(made, "raw", dict(raw))
        return made

    @classmethod
    def told_by(cls, tell: Callable[[], dict[str, Any]], uid: str) -> Self:
        """The task with this uid that `tell` answers, which is asked when another member is first looked at."""
        made = cls.__new__(cls)
        object.__setattr__(made, "_tell", tell)
        object.__setattr__(made, "uid", uid)
        return made


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


def _task_member(name: str, raw: Mapping[str, Any]) -> Any:
    value = raw.get(name)
    if name == "done":
        return bool(_task_member("state", raw) in FINAL if value is None else value)
    if value is None:
        member = Task.__dataclass_fields__[name]
        if member.default_factory is not MISSING:
            return member.default_factory()
        return "" if member.default is MISSING else member.default
    if name in _TEXTS:
        return str(value)
    if name in _RECORDS:
        return _RECORDS[name](**_known(_RECORDS[name], value))
    if name in _MEMBERS[Task][1]:
        return _time(value)
    return tuple(value) if name == "flags" else value


def _time(text: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None


def _members(kind: type[Any]) -> tuple[frozenset[str], frozenset[str]]:
    """All that answers may give, and those that are times."""
    names = frozenset(each.name for each in fields(kind)) - {"raw"}
    return names, frozenset(name for name in names if name.endswith("_at") or name == "time")


_TEXTS = frozenset({"id", "action", "zone", "state"})
_RECORDS: dict[str, type[Any]] = {"progress": Progress, "owner": Owner, "error": TaskError}
_MEMBERS = {kind: _members(kind) for kind in (Progress, TaskError, Owner, Task, Event, Callback)}
