"""What each answer of a receiver means, and when the next attempt is made."""

import asyncio
import logging
from collections.abc import Callable, Sequence

import pytest
from msgspec.structs import replace

from task_daemon.clock import FakeClock
from task_daemon.core.crowd import LINES
from task_daemon.core.model import Attempt, Delivery
from task_daemon.core.ports import Answer, Delivered, Later, Outcome, Refused, Unsendable
from task_daemon.tracking.deliver import Deliverer
from tests.making import NOW


class Script:
    """A Sender that answers by a script."""

    def __init__(self, *answers: Answer | Exception) -> None:
        self._answers = list(answers)
        self.attempts: list[int] = []

    async def send(self, delivery: Delivery, attempt: int, now: float) -> Answer:
        self.attempts.append(attempt)
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def close(self) -> None:
        return None


def a_delivery(attempts: int = 0, tries: Sequence[Attempt] = ()) -> Delivery:
    return Delivery(
        id="msg_1",
        uid="u",
        task_seq=2,
        part=0,
        type="task.succeeded",
        via="webhook",
        target="http://127.0.0.1:1",
        method="POST",
        url="http://127.0.0.1:1/x",
        body=b"{}",
        owner_uid=0,
        created_at=NOW,
        next_at=NOW,
        attempts=attempts,
        tries=tuple(tries),
    )


async def outcome(answer: Answer | Exception, delivery: Delivery | None = None) -> Outcome:
    return await Deliverer(Script(answer), FakeClock(NOW), chance=lambda: 0.5)(delivery or a_delivery())


@pytest.mark.parametrize("status", [200, 202, 204, 299])
async def test_any_2xx_is_delivered(status: int) -> None:
    assert isinstance(await outcome(Answer(status, 0.1)), Delivered)


async def test_gone_is_dead_at_once() -> None:
    assert isinstance(await outcome(Answer(410, 0.1)), Refused)


@pytest.mark.parametrize("status", [301, 302, 401, 408, 425, 429, 500, 502, 503, 599])
async def test_everything_that_may_pass_is_tried_again_by_the_schedule(status: int) -> None:
    said = await outcome(Answer(status, 0.1), a_delivery(attempts=4))

    assert isinstance(said, Later)
    assert said.seconds == 60
    assert said.target_down is (status >= 500)


@pytest.mark.parametrize("status", [400, 403, 404, 422])
async def test_other_client_errors_get_three_tries(status: int) -> None:
    refused = Attempt(at=NOW, status=status)

    assert isinstance(await outcome(Answer(status, 0.1)), Later)
    assert isinstance(await outcome(Answer(status, 0.1), a_delivery(1, [refused])), Later)
    assert isinstance(await outcome(Answer(status, 0.1), a_delivery(2, [refused, refused])), Refused)


async def test_a_receiver_that_was_down_for_long_still_gets_three_tries_after_it() -> None:
    down = Attempt(at=NOW, error="connection refused")

    assert isinstance(await outcome(Answer(404, 0.1), a_delivery(9, [down] * 9)), Later)


@pytest.mark.parametrize("error", [ConnectionRefusedError("refused"), TimeoutError(), OSError("no route")])
async def test_no_answer_counts_against_the_target(error: Exception) -> None:
    said = await outcome(error)

    assert isinstance(said, Later)
    assert said.target_down
    assert said.attempt.error


async def test_the_schedule_ends_in_a_dead_delivery() -> None:
    assert isinstance(await outcome(Answer(500, 0.1), a_delivery(attempts=12)), Refused)


async def test_retry_after_is_honoured_up_to_an_hour() -> None:
    assert (await outcome(Answer(503, 0.1, retry_after=120.0))).seconds == 120  # type: ignore[union-attr]
    assert (await outcome(Answer(503, 0.1, retry_after=1e6))).seconds == 3600  # type: ignore[union-attr]
    assert (await outcome(Answer(503, 0.1, retry_after=0.0))).seconds == 1  # type: ignore[union-attr]


async def test_what_can_never_be_sent_is_dead_and_says_why() -> None:
    said = await outcome(Unsendable("host 10.0.0.1 is not in [callbacks] allow"))

    assert isinstance(said, Refused)
    assert said.attempt.error == "host 10.0.0.1 is not in [callbacks] allow"


async def test_attempts_are_counted_from_one() -> None:
    sender = Script(Answer(500, 0), Answer(200, 0))
    deliverer = Deliverer(sender, FakeClock(NOW))
    delivery = a_delivery()

    await deliverer(delivery)
    await deliverer(replace(delivery, attempts=1))

    assert sender.attempts == [1, 2]


async def test_a_crowd_of_accepted_callbacks_has_some_lines_and_one_that_counts_the_others(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "task_daemon.tracking")
    later: list[Callable[[], None]] = []
    monkeypatch.setattr(asyncio.get_running_loop(), "call_later", lambda _seconds, call: later.append(call))
    deliver = Deliverer(Script(*[Answer(200, 0.1)] * (LINES + 2), Answer(410, 0.1)), FakeClock(NOW))
    for _ in range(LINES + 3):
        await deliver(a_delivery())
    (tell,) = later
    tell()

    said = [record.getMessage() for record in caplog.records]
    assert len(said) == LINES + 2
    assert said[-2].startswith("cannot tell http://127.0.0.1:1 of task u: answered 410")
    assert said[-1].startswith("2 more callbacks were accepted in the last second")
