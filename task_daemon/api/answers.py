"""The shapes of the answers, for the OpenAPI document. They describe what `core/view.py` and the managers make; tests hold the
real answers against them."""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from task_daemon.core.model import CallbackTarget, DeliveryState, ErrorKind, Mode, State

Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"}, description="RFC 3339, UTC, with milliseconds.")]
Sequence = Annotated[int, Meta(ge=0, description="Number of an event: gap-free, across restarts too.")]
Count = Annotated[int, Meta(ge=0)]


class Owner(Struct):
    uid: int
    gid: int
    pid: int


class Progress(Struct):
    """What is not known is null, never 0. `percent` never falls while shown."""

    percent: Annotated[float, Meta(ge=0, le=100)] | None
    done: int | None
    total: int | None
    unit: str | None
    rate: float | None
    eta_seconds: float | None
    message: str | None


class TaskError(Struct):
    kind: ErrorKind
    message: str
    backend: dict[str, Any] | None


class CallbackCounts(Struct):
    pending: Count
    delivered: Count
    dead: Count


class Task(Struct):
    """Members of the registration that begin with x_ are there, too."""

    uid: str
    id: str
    action: str
    zone: str
    job: str | None
    region_task_id: str | int | None
    params: dict[str, Any] | None
    labels: dict[str, str]
    callback: CallbackTarget | None
    owner: Owner
    state: State
    done: bool
    revision: int
    mode: Mode
    progress: Progress
    error: TaskError | None
    flags: list[Literal["stalled", "backend_unreachable", "adopted", "redacted"]]
    size: int | None
    timeout: float
    poll_interval: float | None
    created_at: Time
    started_at: Time | None
    updated_at: Time
    finished_at: Time | None
    deadline_at: Time
    last_polled_at: Time | None
    last_progress_at: Time | None
    next_poll_at: Time | None
    cancellable: bool
    callbacks: CallbackCounts


class Tasks(Struct):
    tasks: list[Task]


class TaskPage(Struct):
    tasks: list[Task]
    next_page_token: str | None
    cursor: Sequence


class Event(Struct):
    seq: Sequence
    uid: str
    task_seq: int
    type: str
    time: Time
    detail: dict[str, Any]


class Events(Struct):
    """`cursor` is the `after` of the next page."""

    events: list[Event]
    cursor: Sequence


class Try(Struct):
    at: Time
    seconds: float
    status: int | None
    error: str | None
    answer: str | None


class Delivery(Struct):
    id: str
    uid: str
    seq: Sequence
    task_seq: int
    part: int
    type: str
    via: Literal["webhook", "region"]
    method: str
    url: str | None
    state: DeliveryState
    attempts: Count
    created_at: Time
    next_at: Time | None
    tries: list[Try]
    redacted: bool | UnsetType = UNSET


class Deliveries(Struct):
    callbacks: list[Delivery]


class DeliveryPage(Struct):
    callbacks: list[Delivery]
    next_page_token: str | None


class Explanation(Struct):
    uid: str
    state: State
    waiting_for: Annotated[str, Meta(description="One sentence for people.")]
    now: Time
    next_poll_at: Time | None
    zone: dict[str, Any]
    callbacks: list[dict[str, Any]]


class ZoneFault(Struct):
    at: Time
    error: str


class Zone(Struct):
    zone: str
    backend: str
    state: Literal["idle", "ok", "unreachable", "hung", "paused"]
    actions: list[str]
    labels: dict[str, str]
    poll_interval: float
    poll_timeout: float
    live_tasks: Count
    last_poll_at: Time | None
    last_answer_at: Time | None
    next_poll_at: Time | None
    latency_seconds: float | None
    breaker: Literal["open", "closed"]
    failures: Count
    last_error: str | None
    errors: list[ZoneFault]


class Zones(Struct):
    zones: list[Zone]


class Action(Struct):
    action: str
    backend: str
    summary: str
    cancellable: bool
    params: Annotated[dict[str, Any], Meta(description="JSON Schema of `params`.")]
    zones: list[str]


class Actions(Struct):
    actions: list[Action]


class You(Struct):
    uid: int
    gid: int
    pid: int
    roles: list[Literal["admin", "operator", "reader"]]


class Info(Struct):
    version: str
    versions: dict[str, str]
    pid: int
    boot_id: str
    started_at: Time
    phase: Literal["ready", "starting", "draining", "degraded"]
    reason: str | None
    features: list[str]
    limits: dict[str, Any]
    durability: str
    you: You
    status: dict[str, Any]


class Status(Struct):
    status: str


class Configuration(Struct):
    file: str | None
    toml: str


class Lines(Struct):
    lines: list[str]


class StoreCheck(Struct):
    ok: bool | None
    complete: bool
    findings: list[str]
    seconds: float


class Member(Struct):
    """What is wrong where: a JSON pointer into the body, `?name` of a query parameter, or the name of a header."""

    pointer: str
    message: str


class Problem(Struct):
    """RFC 9457. Judge by `code`; some codes have further members (`index`, `uid`, `oldest`)."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: list[Member]
    retryable: bool
    request_id: str | UnsetType = UNSET
