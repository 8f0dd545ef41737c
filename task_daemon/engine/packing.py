"""Live tasks as few bytes: a million of them are watched, and one is looked at only when its poll is due.

A packed task holds the values of its members without their names, and without what the tasks of one zone, action and
mode have in common, which is held once. Most members of most tasks have their default and take one byte together.
Packing and unpacking take about one microsecond each.
"""

import sys
from itertools import count
from operator import attrgetter
from typing import Any, get_type_hints

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from task_daemon.core.model import FINAL, Mode, Owner, State, Task

COMMON = ("zone", "action", "mode")
USUAL = (  # the first four are those of `Version`
    "task_seq",
    "revision",
    "state",
    "deadline_at",
    "id",
    "owner",
    "created_at",
    "timeout",
    "progress",
    "started_at",
    "updated_at",
    "last_progress_at",
)
SELDOM = tuple(name for name in Task.__struct_fields__ if name not in {"uid", *COMMON, *USUAL})


class Version(Struct, array_like=True, gc=False):
    """How a packed task begins. `number`: of what it has in common with others."""

    number: int
    task_seq: int
    revision: int
    state: State
    deadline_at: float

    @property
    def done(self) -> bool:
        return self.state in FINAL


_DEFAULTS = Task(
    uid="", id="", action="", zone="", mode=Mode.TRACK, owner=Owner(0, 0), created_at=0.0, timeout=0.0, deadline_at=0.0
)
_usual = attrgetter(*USUAL)
_seldom = attrgetter(*SELDOM)
_seldom_defaults = _seldom(_DEFAULTS)
_hints = get_type_hints(Task)
_encode = msgspec.msgpack.Encoder().encode
_JSON = b"{"  # no array of MessagePack begins like this
_tuple_of: Any = tuple
_decode: msgspec.msgpack.Decoder[tuple[Any, ...]] = msgspec.msgpack.Decoder(
    _tuple_of[(int, *(_hints[name] for name in USUAL), _tuple_of[tuple(_hints[name] for name in SELDOM)] | None)]
)
_version = msgspec.msgpack.Decoder(Version)


class Packing:
    """Any thread."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, str, Mode], int] = {}
        self._common: dict[int, Task] = {}  # by number: a task with nothing but what they have in common
        self._free = count()

    def pack(self, task: Task) -> bytes:
        number = self._numbers.get((task.zone, task.action, task.mode))
        if number is None:
            number = self._add(task)
        seldom = _seldom(task)
        try:
            return _encode((number, *_usual(task), None if seldom == _seldom_defaults else seldom))
        except OverflowError:  # an integer of more than 64 bits somewhere: JSON takes those
            return msgspec.json.encode(task)

    def unpack(self, uid: str, packed: bytes) -> Task:
        if packed.startswith(_JSON):
            return msgspec.json.decode(packed, type=Task)
        (number, seq, revision, state, deadline, name, owner, created, timeout, progress, started, updated, moved, seldom) = (
            _decode.decode(packed)
        )
        task: Task = replace(  # by name: unpacking a dictionary here would take as long as all of the rest
            self._common[number],
            uid=uid,
            task_seq=seq,
            revision=revision,
            state=state,
            deadline_at=deadline,
            id=name,
            owner=owner,
            created_at=created,
            timeout=timeout,
            progress=progress,
            started_at=started,
            updated_at=updated,
            last_progress_at=moved,
        )
        return task if seldom is None else replace(task, **dict(zip(SELDOM, seldom, strict=True)))

    def version(self, packed: bytes) -> Version | Task:
        return self.unpack("", packed) if packed.startswith(_JSON) else _version.decode(packed)

    def _add(self, task: Task) -> int:
        common = replace(_DEFAULTS, zone=sys.intern(task.zone), action=sys.intern(task.action), mode=task.mode)
        number = next(self._free)
        self._common[number] = common
        return self._numbers.setdefault((common.zone, common.action, common.mode), number)  # another thread may have been first
