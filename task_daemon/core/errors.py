"""Everything that can go wrong, by meaning.

TaskDaemonError
├── Refusal                    a request is refused; nothing was stored
│   ├── InvalidBody            which members are wrong and what would be accepted
│   ├── UnknownAction  UnknownZone
│   ├── Conflict               the same zone, action and id is being watched with other members
│   ├── IdempotencyKeyReused
│   ├── NotCancellable  AlreadyFinished  NotLost
│   ├── NotFound  Gone  CursorExpired
│   ├── Forbidden
│   ├── QuotaExceeded  QueueFull
│   ├── StoreFull  Degraded  Draining  Starting
│   └── OutcomeUnknown         a commit failed half-way: it may or may not have happened
├── BackendError               raised by backends
│   ├── BackendUnreachable     the zone did not answer: no evidence about any of its tasks
│   ├── StartRefused           this task cannot be started, and trying again would not help
│   └── WorkGone               this task was started once and is gone: starting again would be a second run
├── StoreError                 the store cannot be opened
│   ├── WorkspaceTaken         another daemon serves the workspace
│   └── StoreTooNew            a newer daemon has migrated it: starting again would not help
└── ConfigError                every mistake of a configuration file at once
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar


class TaskDaemonError(Exception):
    """Base of all errors of this project."""


class Refusal(TaskDaemonError):
    """A request that is refused. `code` is a frozen word of the REST contract.

    `members` name what is wrong in the body: pairs of a JSON pointer and a sentence. `retry_after` is in seconds;
    a refusal that has one may succeed later without any change to the request.
    """

    code: ClassVar[str] = "internal"
    title: ClassVar[str] = "Refused"

    def __init__(
        self,
        detail: str,
        members: Sequence[tuple[str, str]] = (),
        retry_after: float | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.members = tuple(members)
        self.retry_after = retry_after
        self.extra = dict(extra or {})


class InvalidBody(Refusal):
    code = "invalid-body"
    title = "The request is not valid"


class UnknownAction(Refusal):
    code = "unknown-action"
    title = "Unknown action"


class UnknownZone(Refusal):
    code = "unknown-zone"
    title = "Unknown zone"


class Conflict(Refusal):
    code = "conflict"
    title = "Already being watched with other members"


class IdempotencyKeyReused(Refusal):
    code = "idempotency-key-reused"
    title = "The idempotency key was used for another body"


class NotCancellable(Refusal):
    code = "not-cancellable"
    title = "The task cannot be cancelled"


class AlreadyFinished(Refusal):
    code = "already-finished"
    title = "The task has ended already"


class NotDone(Refusal):
    code = "not-done"
    title = "The task has not ended yet"


class NotLost(Refusal):
    code = "not-lost"
    title = "Only a lost task can be resolved"


class NotFound(Refusal):
    code = "not-found"
    title = "Not found"


class Gone(Refusal):
    code = "gone"
    title = "Deleted"


class CursorExpired(Refusal):
    code = "cursor-expired"
    title = "The cursor is older than what is retained"


class Forbidden(Refusal):
    code = "forbidden"
    title = "Not allowed"


class QuotaExceeded(Refusal):
    code = "quota-exceeded"
    title = "Too many live tasks of this user"


class QueueFull(Refusal):
    code = "queue-full"
    title = "Too many live tasks"


class StoreFull(Refusal):
    code = "store-full"
    title = "The disk of the store is full"


class Degraded(Refusal):
    code = "degraded"
    title = "The store cannot be written"


class Draining(Refusal):
    code = "draining"
    title = "The daemon is stopping"


class Starting(Refusal):
    code = "starting"
    title = "The daemon is starting"


class OutcomeUnknown(Refusal):
    code = "outcome-unknown"
    title = "Whether this was stored is not known"


class BackendError(TaskDaemonError):
    """Base of what backends raise."""


class BackendUnreachable(BackendError):
    """The zone gave no answer (down, hung, garbage). Says nothing about the tasks in it."""


class StartRefused(BackendError):
    """Starting this task is impossible and trying again would not help (bad path, no such image, not allowed).

    `kind` is an error kind of the contract.
    """

    def __init__(self, message: str, kind: str = "start-refused") -> None:
        super().__init__(message)
        self.kind = kind


class WorkGone(BackendError):
    """The work was started before and has vanished; starting it again would run it twice."""


class StoreError(TaskDaemonError):
    """The store cannot be opened; the message says why and what to do."""


class WorkspaceTaken(StoreError):
    """Another daemon serves this workspace. `pid` is its process id, 0 if it did not say."""

    def __init__(self, message: str, pid: int = 0) -> None:
        super().__init__(message)
        self.pid = pid


class StoreTooNew(StoreError):
    """The store is of a later version than this daemon knows."""


class ConfigError(TaskDaemonError):
    """All mistakes of a configuration, one sentence each."""

    def __init__(self, mistakes: Sequence[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = tuple(mistakes)
