"""What one callback costs the event loop's thread, from the commit of its end to the record of its outcome: counted, not timed,
against a real receiver on a socket. The store's part is left out; it is counted where it is written. The baselines are in
test_cost.json; how they are renewed says tests/costs.py.
"""

import asyncio
import base64
import logging
from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from task_daemon.callbacks.sender import HttpSender
from task_daemon.callbacks.signing import Key
from task_daemon.callbacks.target import check_target
from task_daemon.clock import FakeClock
from task_daemon.core.measures import Measures
from task_daemon.core.model import Delivery, DeliveryState
from task_daemon.engine.courier import Courier
from task_daemon.engine.outbox import Outbox
from task_daemon.tracking.deliver import Deliverer
from tests.costs import Calls, counted, expect_cost
from tests.engine.test_outbox import row
from tests.receivers import Receiver
from tests.waiting import PATIENCE

ROUNDS, EACH = 5, 40
KEY = Key("whsec_" + base64.b64encode(b"k" * 32).decode())


class Post:
    """Everything between the commit and the record. One callback at a time, so that the loop turns as often for each of them;
    outcomes are recorded at once, and their versions kept."""

    def __init__(self, clock: FakeClock, *keys: Key) -> None:
        self.recorded: list[Delivery] = []
        self.whole = asyncio.Event()
        self.until = 0
        self.sender = HttpSender("1", {"default": keys})
        self.outbox = Outbox(per_target=1)
        self.clock = clock
        self.courier = Courier(self.outbox, clock, Deliverer(self.sender, clock), self._record, lambda: None, Measures())

    async def carry(self, rows: Sequence[Delivery]) -> None:
        self.until = len(self.recorded) + len(rows)
        self.whole.clear()
        self.outbox.add(rows, self.clock.now())
        self.courier.pump()
        async with asyncio.timeout(PATIENCE):
            await self.whole.wait()

    async def _record(self, rows: Sequence[Delivery]) -> None:
        self.recorded += rows
        if len(self.recorded) >= self.until:
            self.whole.set()


async def cost(post: Post, url: str) -> float:
    """Calls for one callback: the least of some rounds."""
    calls, taken = Calls(), []
    for turn in range(ROUNDS):
        rows = [replace(row(f"u{turn}-{n}"), url=url, target=check_target(url)) for n in range(EACH)]
        calls.made = 0
        with counted(calls):
            await post.carry(rows)
        taken.append(calls.made / EACH)
    assert {one.state for one in post.recorded} == {DeliveryState.DELIVERED}
    await post.courier.close()
    await post.sender.close()
    return min(taken)


@pytest.mark.parametrize(("name", "keys"), [("a callback", ()), ("a signed callback", (KEY,))])
async def test_callback_costs_what_it_did(
    name: str, keys: Sequence[Key], clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "task_daemon.tracking")  # the lines of a crowd are few
    with Receiver() as receiver:
        calls = await cost(Post(clock, *keys), receiver.url)
        assert len(receiver.requests) == ROUNDS * EACH
        assert receiver.connections == 1
    expect_cost(__file__, name, calls)
