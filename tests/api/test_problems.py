"""Every refusal has its status, and looks the same everywhere."""

import pytest
from tornado.web import HTTPError

from task_daemon.api import problems
from task_daemon.api.problems import problem, refusal_of
from task_daemon.core import errors
from task_daemon.core.errors import Conflict, InvalidBody, QuotaExceeded, Refusal

GOLDEN = {
    "invalid-body": 400,
    "unknown-action": 400,
    "unknown-zone": 400,
    "conflict": 409,
    "idempotency-key-reused": 422,
    "not-cancellable": 409,
    "already-finished": 409,
    "not-done": 409,
    "not-lost": 409,
    "not-found": 404,
    "gone": 410,
    "too-large": 413,
    "quota-exceeded": 429,
    "queue-full": 503,
    "store-full": 507,
    "degraded": 503,
    "draining": 503,
    "starting": 503,
    "forbidden": 403,
    "cursor-expired": 410,
    "method-not-allowed": 405,
    "not-acceptable": 406,
    "unsupported-media-type": 415,
    "outcome-unknown": 503,
    "internal": 500,
}


def subclasses(kind: type[Refusal]) -> list[type[Refusal]]:
    return [kind, *(deeper for child in kind.__subclasses__() for deeper in subclasses(child))]


def test_the_codes_and_their_statuses_are_frozen() -> None:
    assert problems.STATUS == GOLDEN


def test_every_refusal_has_a_status() -> None:
    known = [kind for kind in subclasses(Refusal) if kind.__module__ in {errors.__name__, problems.__name__}]

    assert len(known) > 20
    assert {kind.code for kind in known} == set(GOLDEN)


def test_a_problem_carries_members_and_extra_when_the_refusal_has_them() -> None:
    status, headers, body = problem(Conflict("differs", members=[("/params", "is other")], extra={"uid": "u1"}), "r1")

    assert status == 409
    assert headers == {"Content-Type": "application/problem+json"}
    assert body == {
        "uid": "u1",
        "type": "urn:task-daemon:problem:conflict",
        "title": "Already being watched with other members",
        "status": 409,
        "detail": "differs",
        "code": "conflict",
        "request_id": "r1",
        "errors": [{"pointer": "/params", "message": "is other"}],
        "retryable": False,
    }


def test_retry_after_is_whole_seconds_rounded_up() -> None:
    _, headers, body = problem(QuotaExceeded("too many", retry_after=1.2), "r1")

    assert headers["Retry-After"] == "2"
    assert body["retryable"] is True


@pytest.mark.parametrize("code", [code for code, status in GOLDEN.items() if status in {429, 503}])
def test_whatever_may_work_later_says_when(code: str) -> None:
    refusal = next(kind for kind in subclasses(Refusal) if kind.code == code)("not now")

    assert "Retry-After" in problem(refusal, "r1")[1]


def test_nothing_is_told_about_an_unexpected_error() -> None:
    refusal = refusal_of(RuntimeError("password is hunter2"), "GET", "/x", ())

    assert refusal.code == "internal"
    assert "hunter2" not in str(problem(refusal, "r1"))


@pytest.mark.parametrize(
    ("status", "code"), [(400, "invalid-body"), (404, "not-found"), (405, "method-not-allowed"), (500, "internal")]
)
def test_errors_of_the_web_framework_become_codes_of_the_contract(status: int, code: str) -> None:
    assert refusal_of(HTTPError(status), "GET", "/x", ("POST",)).code == code


def test_a_refusal_stays_what_it_is() -> None:
    refusal = InvalidBody("no")

    assert refusal_of(refusal, "GET", "/x", ()) is refusal
