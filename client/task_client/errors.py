"""Everything that can go wrong on the caller's side, by meaning.

ClientError
├── DaemonUnreachable     no connection: the request was not sent, so sending it again is safe
├── AnswerUnknown         the request was sent and no answer came: it may or may not have been carried out
├── RequestRefused        the daemon answered and said no; `code` is a frozen word of the REST contract
├── ServerError           what `register_task` raises; callers may put their own class in its place
├── TaskFailed            a task was waited for and did not succeed
├── WaitTimeout           a task was waited for and has not ended yet
└── DaemonNotStarted      the daemon died while starting, or does not accept connections in time
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from task_client.types import Task


class ClientError(Exception):
    """Base of all errors of this package."""


class DaemonUnreachable(ClientError, ConnectionError):
    """The request was not sent.

    `retryable`: nobody listens, or too many are connecting at this moment (`busy`); trying later may help by itself.
    """

    def __init__(self, message: str, retryable: bool = True, busy: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable
        self.busy = busy


class AnswerUnknown(ClientError, ConnectionError):
    """The request was sent, and the connection broke or the time was up before an answer came."""


class RequestRefused(ClientError):
    """The daemon's answer is an error.

    `problem` is the whole problem document ({} if the answer was none), `code` its frozen word (`http-<status>` if it
    has none), `retry_after` is in seconds.
    """

    def __init__(self, status: int, problem: Mapping[str, Any], retry_after: float | None = None) -> None:
        self.status = status
        self.problem = dict(problem)
        self.code = str(self.problem.get("code") or f"http-{status}")
        self.detail = str(
            self.problem.get("detail") or self.problem.get("title") or f"the daemon answered with HTTP status {status}"
        )
        self.retry_after = retry_after
        super().__init__(f"{self.detail} ({self.code})")

    @property
    def errors(self) -> list[tuple[str, str]]:
        """What is wrong in the request: pairs of a JSON pointer and a sentence."""
        found = self.problem.get("errors")
        if not isinstance(found, list):
            return []
        return [(str(e.get("pointer", "")), str(e.get("message", ""))) for e in found if isinstance(e, Mapping)]


class ServerError(ClientError):
    """What `register_task` raises unless the caller has put another class in its place (`legacy.server_error`)."""


class TaskFailed(ClientError):
    """The task ended as failed, cancelled or lost; `task` says how and why."""

    def __init__(self, task: "Task") -> None:
        why = "" if task.error is None else f": {task.error.message} ({task.error.kind})"
        super().__init__(f"task {task.uid} ({task.action} of {task.id} in zone {task.zone}) is {task.state}{why}")
        self.task = task


class WaitTimeout(ClientError, TimeoutError):
    """Time was up before the end. The tasks go on; `uids` are those not known to have ended."""

    def __init__(self, uids: Sequence[str], seconds: float) -> None:
        names = ", ".join(uids[:3]) + (f" and {len(uids) - 3} more" if len(uids) > 3 else "")
        super().__init__(f"cannot wait any longer for task {names}: not ended within {seconds:g} s; the work goes on")
        self.uids = tuple(uids)


class DaemonNotStarted(ClientError):
    """`log` holds the last lines the daemon wrote, `exit_code` is None while it is still running."""

    def __init__(self, message: str, exit_code: int | None = None, log: str = "") -> None:
        super().__init__(f"{message}\n{log}" if log else message)
        self.exit_code = exit_code
        self.log = log
