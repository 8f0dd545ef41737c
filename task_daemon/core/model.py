"""The nouns: Task, State, Progress, Report, Verdict, Event, Delivery and what belongs to them.

All are frozen; a change makes a new one (`msgspec.structs.replace`). Times are Unix seconds (float, wall clock),
durations are seconds, sizes are bytes.
"""

from enum import Enum, StrEnum
from typing import Annotated, Any

from msgspec import Meta, Struct

SECONDS_PER_YEAR = 31_536_000


class State(StrEnum):
    """Where a task stands. The last four are final; only `lost` can be left, and only by `resolve`."""

    QUEUED = "queued"  # registered; tracked work not seen yet, run work not started yet
    RUNNING = "running"  # seen in the backend
    CANCELLING = "cancelling"  # cancellation asked for, not confirmed by the backend yet
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"  # the backend answers, it knew the work before, and now it does not


FINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED, State.LOST})


class Mode(StrEnum):
    TRACK = "track"  # the registrant started the work; the daemon only looks
    RUN = "run"  # the daemon starts the work


class Verdict(Enum):
    """What one poll decided about one task."""

    UNKNOWN = "unknown"  # no evidence: not there yet, or this entry of the answer made no sense
    GOING_ON = "going on"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    VANISHED = "vanished"  # a good answer, and the work is not in it


class Owner(Struct, frozen=True, gc=False, omit_defaults=True):
    """Who registered the task, as the kernel told (SO_PEERCRED, SO_PEERGROUPS)."""

    uid: int
    gid: int
    pid: int = 0
    groups: tuple[int, ...] = ()  # supplementary


class CallbackTarget(Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """Where the registrant wants to be told. `secret` is the name of a configured key, never the key."""

    url: Annotated[str, Meta(min_length=1, max_length=2048)]
    events: Annotated[tuple[str, ...], Meta(max_length=4)] = ("finished",)  # of finished, progress, stalled, size
    secret: Annotated[str, Meta(min_length=1, max_length=64)] | None = None


CALLBACK_EVENTS = ("finished", "progress", "stalled", "size")


class Draft(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A registration as it was asked for; the registration body of the REST contract. `None` = absent."""

    id: Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
    action: Annotated[str, Meta(min_length=1, max_length=64)]
    zone: Annotated[str, Meta(min_length=1, max_length=64)]
    params: dict[str, Any] | None = None
    job: Annotated[str, Meta(min_length=1, max_length=300)] | None = None
    region_task_id: Annotated[str, Meta(min_length=1, max_length=255)] | int | None = None
    callback: CallbackTarget | None = None
    timeout: Annotated[float, Meta(ge=1, le=SECONDS_PER_YEAR)] | None = None
    poll_interval: Annotated[float, Meta(ge=0.1, le=3600)] | None = None
    labels: (
        Annotated[
            dict[Annotated[str, Meta(min_length=1, max_length=64)], Annotated[str, Meta(max_length=255)]], Meta(max_length=16)
        ]
        | None
    ) = None


class Progress(Struct, frozen=True, gc=False, omit_defaults=True):
    """How far the work is. `None` = not known, which is never the same as 0.

    `done` and `total` are what the backend said (they may fall or grow); `percent` is what is shown and never falls.
    """

    percent: float | None = None
    done: int | None = None
    total: int | None = None
    unit: str | None = None  # "bytes", "files", ...
    rate: float | None = None  # units a second, smoothed
    eta_seconds: float | None = None
    message: str | None = None


class TaskError(Struct, frozen=True, gc=False, omit_defaults=True):
    """Why a task did not succeed. `kind` is a stable word of the contract, `backend` the backend's own details."""

    kind: str
    message: str
    backend: dict[str, Any] | None = None


class ErrorKind(StrEnum):
    BACKEND = "backend"  # the work itself failed
    TIMEOUT = "timeout"
    LOST = "lost"
    START_REFUSED = "start-refused"
    ZONE_REMOVED = "zone-removed"
    INTERNAL = "internal"


class Task(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """One long operation being watched. The engine stores it whole; the API shows a view of it (`core/view.py`)."""

    uid: str  # the daemon's name for it: UUIDv7 text
    id: str  # the registrant's name for the object worked on
    action: str
    zone: str
    mode: Mode
    owner: Owner
    created_at: float
    timeout: float  # seconds of wall time from registration
    deadline_at: float
    job: str | None = None  # the work's name in the backend; track only
    params: dict[str, Any] | None = None
    region_task_id: str | int | None = None
    callback: CallbackTarget | None = None
    poll_interval: float | None = None  # None: the zone's
    labels: dict[str, str] | None = None
    extra: dict[str, Any] | None = None  # the x_... members of the registration

    state: State = State.QUEUED
    revision: int = 1  # rises with every visible change, progress included
    task_seq: int = 1  # number of durable events so far; the compare-and-set value of every durable change
    progress: Progress | None = None
    error: TaskError | None = None
    started_at: float | None = None
    updated_at: float | None = None
    finished_at: float | None = None
    last_progress_at: float | None = None
    progress_told_at: float | None = None  # when the last opt-in progress callback was planned
    handle: dict[str, Any] | None = None  # what the backend wants remembered; small
    launched: bool = False  # run: the intent to start is on disk, so the work may exist
    adopted: bool = False  # run: found running under its stored name after a crash
    tidy: bool = True  # False: the backend still has something to clean up after the end (`Action.forget`)
    stalled: bool = False
    misses: int = 0  # good answers in a row without the work
    size: int | None = None  # bytes the result takes, once known (backups)
    size_told: bool = False  # the size was reported to the registrant or the region
    deleted: bool = False  # by DELETE; reads give 410

    @property
    def done(self) -> bool:
        return self.state in FINAL


class Report(Struct, frozen=True, gc=False, omit_defaults=True):
    """What one poll saw of one task."""

    verdict: Verdict
    progress: Progress | None = None  # without rate and eta: those are computed here
    message: str | None = None  # why it failed, or what the evidence for `vanished` is
    kind: str = ErrorKind.BACKEND.value  # error kind, for FAILED
    backend: dict[str, Any] | None = None  # the backend's own details of a failure
    handle: dict[str, Any] | None = None  # a new handle to remember; None = as it was
    size: int | None = None
    certain: bool = False  # VANISHED: no further poll needed to believe it (the storage was restarted)
    cancelled: bool = False  # FAILED: because somebody cancelled the work
    adopted: bool = False  # GOING_ON: found running although this daemon did not see it start


class Event(Struct, frozen=True, gc=False, omit_defaults=True):
    """One row of the append-only history. `seq` is given by the engine: gap-free, across restarts too."""

    uid: str
    type: str  # task.registered, task.running, ..., task.succeeded
    time: float
    task_seq: int
    detail: dict[str, Any] | None = None
    seq: int = 0


class DeliveryState(StrEnum):
    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"
    ACKED = "acked"  # read and acknowledged through the mailbox


class Attempt(Struct, frozen=True, gc=False, omit_defaults=True):
    """One try of a delivery: when, what came back, how long it took."""

    at: float
    seconds: float = 0.0
    status: int | None = None  # HTTP status of the answer
    error: str | None = None  # why there was no answer, or why it was not accepted
    answer: str | None = None  # beginning of the answer's body


class Delivery(Struct, frozen=True, gc=False, kw_only=True):
    """One callback to be made: a row of the outbox.

    Deliveries of one task go out strictly in the order of (`task_seq`, `part`). Those with the same `task_seq` are a
    group: a later part goes out only after the earlier ones were accepted.
    """

    id: str  # stable over retries; the `webhook-id`
    uid: str
    task_seq: int
    part: int
    type: str  # task.succeeded, ...; for the region also that of the event it belongs to
    via: str  # "webhook" (body is the `data` member) or "region" (body is sent as it is)
    target: str  # the lane: scheme and authority of the receiver, or "region"
    method: str
    url: str  # webhook: whole URL; region: path below the service URL
    body: bytes  # JSON
    owner_uid: int
    created_at: float
    next_at: float  # not before this wall time
    secret: str | None = None
    seq: int = 0  # of the event it belongs to; given by the engine
    state: DeliveryState = DeliveryState.PENDING
    attempts: int = 0  # attempts since registration or the last replay
    tries: tuple[Attempt, ...] = ()  # the last 20


class Change(Struct, frozen=True, gc=False):
    """A task as it was and as it is to be, with the events and deliveries that belong to the move.

    Applied only if the stored task still has `before.task_seq`. Without events, deliveries and `save` it is kept in
    memory and reaches the disk at the next checkpoint.
    """

    before: Task
    task: Task
    events: tuple[Event, ...] = ()
    deliveries: tuple[Delivery, ...] = ()
    save: bool = False

    @property
    def durable(self) -> bool:
        return bool(self.events) or bool(self.deliveries) or self.save


class Query(Struct, frozen=True, kw_only=True):
    """Which tasks to list; all given filters must hold. Newest first (by uid), after `before_uid` if given."""

    states: tuple[str, ...] = ()
    done: bool | None = None
    zone: str | None = None
    action: str | None = None
    id: str | None = None
    region_task_id: str | None = None  # compared as text
    labels: tuple[tuple[str, str], ...] = ()
    owner_uid: int | None = None
    created_after: float | None = None
    before_uid: str | None = None
    limit: int = 50


def differing(old: Task, new: Task) -> list[str]:
    """Names of the registration members in which two registrations of the same zone, action and id differ."""
    members = (
        "mode",
        "params",
        "job",
        "region_task_id",
        "callback",
        "timeout",
        "poll_interval",
        "labels",
        "extra",
    )
    named = {"mode": "params"}
    found = [named.get(name, name) for name in members if getattr(old, name) != getattr(new, name)]
    if old.owner.uid != new.owner.uid:
        found.append("owner")
    return list(dict.fromkeys(found))
