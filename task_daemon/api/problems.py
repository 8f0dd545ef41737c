"""From anything that went wrong to `application/problem+json` (RFC 9457)."""

import math
from collections.abc import Sequence
from typing import Any

from tornado.web import HTTPError

from task_daemon.core.errors import InvalidBody, NotFound, Refusal

STATUS = {
    "invalid-body": 400,
    "unknown-action": 400,
    "unknown-zone": 400,
    "forbidden": 403,
    "not-found": 404,
    "method-not-allowed": 405,
    "not-acceptable": 406,
    "conflict": 409,
    "not-cancellable": 409,
    "already-finished": 409,
    "not-done": 409,
    "not-lost": 409,
    "gone": 410,
    "cursor-expired": 410,
    "too-large": 413,
    "unsupported-media-type": 415,
    "idempotency-key-reused": 422,
    "quota-exceeded": 429,
    "internal": 500,
    "queue-full": 503,
    "starting": 503,
    "draining": 503,
    "degraded": 503,
    "outcome-unknown": 503,
    "store-full": 507,
}
"""The HTTP status of every code of the contract: 4xx, the request is to be changed; 429 and 503, the same request may be
sent again later (a registration is found again if the first one was stored after all); 507, somebody must make room."""

RETRY_LATER = frozenset({429, 503})
RETRY_AFTER = 1.0  # seconds, for a refusal that does not say


class TooLarge(Refusal):
    code = "too-large"
    title = "The body is too large"


class NotAcceptable(Refusal):
    code = "not-acceptable"
    title = "No acceptable representation"


class UnsupportedMediaType(Refusal):
    code = "unsupported-media-type"
    title = "The body must be JSON"


class Internal(Refusal):
    code = "internal"
    title = "A fault of the daemon"


class MethodNotAllowed(Refusal):
    code = "method-not-allowed"
    title = "Method not allowed"

    def __init__(self, method: str, path: str, allowed: Sequence[str]) -> None:
        self.allow = ", ".join(allowed)
        super().__init__(f"cannot {method} {path}: methods of this path are: {self.allow or 'none'}")


def refusal_of(error: BaseException, method: str, path: str, allowed: Sequence[str]) -> Refusal:
    """What to tell about an error; nothing of an unexpected one but that it happened."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, HTTPError):  # raised by Tornado itself
        if error.status_code == 405:
            return MethodNotAllowed(method, path, allowed)
        if error.status_code == 404:
            return NotFound(f"cannot {method} {path}: no such path")
        if error.status_code < 500:
            return InvalidBody(f"cannot {method} {path}: {error.log_message or error.reason or 'malformed request'}")
    return Internal(f"cannot {method} {path}: unexpected error in the daemon; its log has the details under this request_id")


def problem(refusal: Refusal, request_id: str) -> tuple[int, dict[str, str], dict[str, Any]]:
    """Status, headers and body."""
    status = STATUS[refusal.code]
    later = refusal.retry_after
    if later is None and status in RETRY_LATER:
        later = RETRY_AFTER
    body = {
        **refusal.extra,
        "type": f"urn:task-daemon:problem:{refusal.code}",
        "title": refusal.title,
        "status": status,
        "detail": refusal.detail,
        "code": refusal.code,
        "request_id": request_id,
        "errors": [{"pointer": pointer, "message": message} for pointer, message in refusal.members],
        "retryable": later is not None,
    }
    headers = {"Content-Type": "application/problem+json"}
    if later is not None:
        headers["Retry-After"] = str(math.ceil(later))
    if isinstance(refusal, MethodNotAllowed):
        headers["Allow"] = refusal.allow
    return status, headers, body
