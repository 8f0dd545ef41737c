"""One call to the daemon: what is repeated, for how long, and what the answer means."""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from task_client.compact import text_of
from task_client.errors import AnswerUnknown, ClientError, DaemonUnreachable, RequestRefused
from task_client.transport import Answer, Transport

log = logging.getLogger("task_client.calls")

FIRST_PAUSE = 0.05
LONGEST_PAUSE = 2.0
NOTHING_STORED = frozenset({"starting", "draining"})
"""Refusals after which even a request that must not be repeated may be: the daemon did not look at it."""


class Caller:
    """Sends requests for `Client`. Safe to use from several threads if the transport is."""

    def __init__(self, transport: Transport, timeout: float, sleep: Callable[[float], None] = time.sleep) -> None:
        self.transport = transport
        self.timeout = timeout
        self._sleep = sleep

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Sequence[tuple[str, Any]] = (),
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        repeatable: bool | None = None,
        hold: float = 0.0,
        survive: float | None = None,
    ) -> Answer:
        """Send one request and answer what came, a success or 304.

        `repeatable`: carrying it out twice does no harm (default: a GET), so it is sent again when the answer got lost,
        until the time-out. `hold` is how long the daemon was asked to wait before it answers, in seconds.
        `survive`: seconds during which even an absent daemon is waited for; None = that is an error at once.
        Raises DaemonUnreachable, AnswerUnknown, RequestRefused.
        """
        target = target_of(path, query) if query else path
        sent, data = encode(headers, body)
        harmless = method == "GET" if repeatable is None else repeatable
        outage = Outage(self.timeout if survive is None else survive, patient=survive is not None)
        while True:
            try:
                answer = self.transport.request(method, target, sent, data, timeout=self.timeout + hold)
                refusal = None if 200 <= answer.status < 300 else refusal_of(answer)
                if refusal is None:
                    outage.over()
                    return answer
                pause = outage.after_refusal(refusal, harmless)
            except (DaemonUnreachable, AnswerUnknown) as error:
                pause = outage.after_break(error, harmless)
            self._sleep(pause)


class Outage:
    """What has gone wrong so far in one call, and whether to try again. `seconds` may be infinite."""

    def __init__(self, seconds: float, patient: bool) -> None:
        self._end = time.monotonic() + seconds
        self._patient = patient
        self._next = FIRST_PAUSE
        self._doubt: AnswerUnknown | None = None
        self._troubles = 0

    def after_break(self, error: DaemonUnreachable | AnswerUnknown, harmless: bool) -> float:
        """Seconds to pause before the next try; raises when there is to be none."""
        if isinstance(error, AnswerUnknown):
            if not harmless:
                raise error
            self._doubt, self._patient = error, True
        elif not error.retryable or not (error.busy or self._patient):
            raise self._doubt or error
        return self._pause(self._doubt or error)

    def after_refusal(self, refusal: RequestRefused, harmless: bool) -> float:
        passing = refusal.status == 503 and refusal.retry_after is not None and refusal.code != "degraded"
        if not passing or not (harmless or refusal.code in NOTHING_STORED):
            raise refusal
        self._patient = True  # a daemon that is draining goes away before the next one comes
        return self._pause(refusal, refusal.retry_after or 0.0)

    @property
    def troubled(self) -> bool:
        return self._troubles > 0

    def over(self) -> None:
        if self.troubled:
            log.info("task-daemon answers again after %d failed tries", self._troubles)

    def _pause(self, error: ClientError, least: float = 0.0) -> float:
        pause = max(least, self._next)
        self._next = min(self._next * 2, LONGEST_PAUSE)
        left = self._end - time.monotonic()
        if left <= 0:
            raise error
        if self._troubles == 0:
            log.warning("%s; trying again%s", error, "" if math.isinf(left) else f" for {left:.0f} s")
        self._troubles += 1
        return min(pause, left)


def target_of(path: str, query: Sequence[tuple[str, Any]] = ()) -> str:
    """Path and query as they are sent."""
    return path + ("?" + urlencode([(name, _text(value)) for name, value in query]) if query else "")


def encode(headers: Mapping[str, str] | None, body: Any) -> tuple[dict[str, str], bytes | None]:
    """Headers and body as they are sent; a body is JSON."""
    sent = dict(headers or ())
    if body is None:
        return sent, None
    sent["Content-Type"] = "application/json"
    return sent, text_of(body).encode()


def _text(value: Any) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def refusal_of(answer: Answer) -> RequestRefused | None:
    """What to raise for an answer; None for a success and for 304."""
    if 200 <= answer.status < 300 or answer.status == 304:
        return None
    try:
        problem = answer.json()
    except ClientError:
        problem = None
    after = answer.headers.get("retry-after", "")
    seconds = float(after) if after.isdecimal() else None
    return RequestRefused(answer.status, problem if isinstance(problem, dict) else {}, seconds)


def members(answer: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """The objects listed under `name`."""
    found = answer.get(name)
    if not isinstance(found, list):
        raise ClientError(f"cannot read the daemon's answer: it has no list {name!r}")
    return [each for each in found if isinstance(each, dict)]
