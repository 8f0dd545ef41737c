"""One attempt of one delivery: send it, judge the answer, choose the next time."""

import logging
import random
from collections.abc import Callable, Sequence

from task_daemon.core import crash
from task_daemon.core.backoff import CALLBACK_SCHEDULE, CLIENT_ERROR_TRIES, RETRY_AFTER_CAP, before_attempt
from task_daemon.core.crowd import Crowd
from task_daemon.core.model import Attempt, Delivery
from task_daemon.core.ports import Answer, Clock, Delivered, Later, Outcome, Refused, Sender, Unsendable

log = logging.getLogger("task_daemon.tracking")

GONE = 410
WORTH_RETRYING = frozenset({401, 408, 425, 429})  # 4xx that say "not now", not "not ever"


class Deliverer:
    """`Handlers.deliver` of the engine; runs on the event loop."""

    def __init__(
        self,
        sender: Sender,
        clock: Clock,
        schedule: Sequence[float] = CALLBACK_SCHEDULE,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._sender = sender
        self._clock = clock
        self._schedule = schedule
        self._chance = chance
        self._crowd = Crowd(_tell_left_out)

    async def __call__(self, delivery: Delivery) -> Outcome:
        now, began = self._clock.now(), self._clock.monotonic()
        crash.reach("callback.before")
        try:
            answer = await self._sender.send(delivery, delivery.attempts + 1, now)
        except Unsendable as error:
            outcome: Outcome = Refused(Attempt(at=now, error=str(error)))
        except (OSError, TimeoutError) as error:
            text = str(error) or type(error).__name__
            attempt = Attempt(at=now, seconds=self._clock.monotonic() - began, error=text)
            outcome = self._later(delivery, attempt, None, target_down=True)
        else:
            crash.reach("callback.after")
            outcome = self._judge(delivery, answer, now)
        if not isinstance(outcome, Delivered):
            _say_why_not(delivery, outcome)
        elif log.isEnabledFor(logging.INFO) and (self._crowd.has_line(began) or log.isEnabledFor(logging.DEBUG)):
            log.info("told %s of task %s: %s", _where(delivery), delivery.uid, delivery.type, extra={"uid": delivery.uid})
        return outcome

    def _judge(self, delivery: Delivery, answer: Answer, now: float) -> Outcome:
        status = answer.status
        if 200 <= status < 300:
            return Delivered(Attempt(at=now, seconds=answer.seconds, status=status))
        attempt = Attempt(at=now, seconds=answer.seconds, status=status, error=f"answered {status}", answer=answer.body or None)
        if status == GONE:
            return Refused(attempt)
        if 400 <= status < 500 and status not in WORTH_RETRYING:
            if 1 + _client_errors_before(delivery) >= CLIENT_ERROR_TRIES:
                return Refused(attempt)
            return self._later(delivery, attempt, answer.retry_after, target_down=False)
        return self._later(delivery, attempt, answer.retry_after, target_down=status >= 500)

    def _later(self, delivery: Delivery, attempt: Attempt, retry_after: float | None, target_down: bool) -> Outcome:
        wait = before_attempt(delivery.attempts + 1, self._chance(), self._schedule)
        if wait is None:
            return Refused(attempt)
        if retry_after is not None:
            wait = max(wait, min(retry_after, RETRY_AFTER_CAP))
        return Later(attempt, wait, target_down)


def _client_errors_before(delivery: Delivery) -> int:
    """How many of the last attempts in a row were refused for what was sent; a receiver that was down in between is
    no evidence against the delivery."""
    count = 0
    for attempt in reversed(delivery.tries[-delivery.attempts :] if delivery.attempts else ()):
        if attempt.status is None or not 400 <= attempt.status < 500 or attempt.status in WORTH_RETRYING:
            break
        count += 1
    return count


def _say_why_not(delivery: Delivery, outcome: Later | Refused) -> None:
    extra, where = {"uid": delivery.uid}, _where(delivery)
    attempt = outcome.attempt
    said = f"{attempt.error or attempt.status}"
    if isinstance(outcome, Later):
        text = "cannot tell %s of task %s: %s; attempt %d, next in %.0f s"
        log.warning(text, where, delivery.uid, said, delivery.attempts + 1, outcome.seconds, extra=extra)
    else:
        text = "cannot tell %s of task %s: %s; given up after attempt %d, replay it with POST /v1/callbacks/%s/replay"
        log.error(text, where, delivery.uid, said, delivery.attempts + 1, delivery.id, extra=extra)


def _tell_left_out(count: int) -> None:
    text = '%d more callbacks were accepted in the last second; /v1/callbacks has them, log_level = "debug" shows each'
    log.info(text, count)


def _where(delivery: Delivery) -> str:
    return f"{delivery.method} {delivery.url}" if delivery.via == "region" else delivery.target
