"""How outcomes are recorded: together, after the place at the receiver is free, and each for itself when one cannot be."""

import asyncio
from collections.abc import Callable, Sequence

from task_daemon.clock import FakeClock
from task_daemon.core.errors import Degraded
from task_daemon.core.measures import Measures
from task_daemon.core.model import Attempt, Delivery, DeliveryState
from task_daemon.core.ports import Delivered, Outcome
from task_daemon.engine.courier import GROUP, Courier
from task_daemon.engine.outbox import UNSETTLED, Outbox
from tests.engine.test_outbox import row
from tests.waiting import PATIENCE


class Post:
    """A courier whose receivers accept everything at once, and a disk that keeps groups until it is let."""

    def __init__(self, clock: FakeClock, per_target: int = 4) -> None:
        self.sent: list[str] = []
        self.handed_on = 0  # outcomes, to the disk
        self.groups: list[list[str]] = []
        self.disk = asyncio.Event()
        self.disk.set()
        self.refuse: Callable[[Sequence[Delivery]], None] = lambda _rows: None
        self.outbox = Outbox(per_target)
        self.clock = clock
        self.courier = Courier(self.outbox, clock, self._send, self._record, lambda: None, Measures())

    def put(self, *rows: Delivery) -> None:
        self.outbox.add(rows, self.clock.now())
        self.courier.pump()

    async def _send(self, delivery: Delivery) -> Outcome:
        await asyncio.sleep(0)
        self.sent.append(delivery.id)
        return Delivered(Attempt(at=0.0, status=200))

    async def _record(self, rows: Sequence[Delivery]) -> None:
        self.handed_on += len(rows)
        await self.disk.wait()
        self.refuse(rows)
        assert all(version.state is DeliveryState.DELIVERED for version in rows)
        self.groups.append([version.id for version in rows])

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not holds():
                await asyncio.sleep(0)

    async def rest(self) -> None:
        await self.until(lambda: not self.courier.busy)


async def test_receiver_does_not_wait_for_the_disk_and_outcomes_share_its_commits(clock: FakeClock) -> None:
    post = Post(clock)
    post.disk.clear()
    post.put(*(row(f"u{n}") for n in range(100)))
    await post.until(lambda: len(post.sent) == 100)
    assert post.groups == []
    post.disk.set()
    await post.rest()
    assert sum(len(group) for group in post.groups) == 100
    assert len(post.groups) <= 4


async def test_outcomes_reach_the_store_while_it_still_writes_those_before(clock: FakeClock) -> None:
    """So that one commit takes all that came during the last."""
    post = Post(clock)
    post.disk.clear()
    post.put(*(row(f"u{n}") for n in range(3 * GROUP)))
    await post.until(lambda: post.handed_on == 3 * GROUP)
    assert post.groups == []
    post.disk.set()
    await post.rest()
    assert len({one for group in post.groups for one in group}) == 3 * GROUP


async def test_next_of_a_task_waits_until_the_one_before_is_on_disk(clock: FakeClock) -> None:
    post = Post(clock)
    post.disk.clear()
    post.put(row("u", part=0), row("u", part=1), row("v"))
    await post.until(lambda: len(post.sent) == 2)
    assert sorted(post.sent) == ["u-0", "v-0"]
    post.disk.set()
    await post.rest()
    assert post.sent[2:] == ["u-1"]


async def test_sending_stops_when_too_much_is_not_on_disk_yet(clock: FakeClock) -> None:
    post = Post(clock)
    post.disk.clear()
    post.put(*(row(f"u{n}") for n in range(2 * UNSETTLED)))
    await post.until(lambda: len(post.sent) >= UNSETTLED)
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(post.sent) < UNSETTLED + 4
    assert post.outbox.next_due() > clock.now()
    post.disk.set()
    await post.rest()
    assert len(post.sent) == 2 * UNSETTLED


async def test_one_outcome_that_cannot_be_stored_keeps_no_other_one(clock: FakeClock) -> None:
    def refuse(rows: Sequence[Delivery]) -> None:
        if any(version.id == "bad-0" for version in rows):
            raise ValueError("not this one")

    post = Post(clock)
    post.refuse = refuse
    post.put(row("good"), row("bad"), row("better"))
    await post.rest()
    assert sorted(one for group in post.groups for one in group) == ["better-0", "good-0"]
    post.refuse = lambda _rows: None
    clock.advance(60)
    post.courier.pump()
    await post.rest()
    assert post.groups[-1] == ["bad-0"]


async def test_delivery_is_sent_again_when_the_store_refused_its_outcome(clock: FakeClock) -> None:
    def refuse(rows: Sequence[Delivery]) -> None:
        raise Degraded("not now", retry_after=1.0)

    post = Post(clock)
    post.refuse = refuse
    post.put(row("a"), row("b"))
    await post.rest()
    post.refuse = lambda _rows: None
    clock.advance(60)
    post.courier.pump()
    await post.rest()
    assert sorted(post.sent) == ["a-0", "a-0", "b-0", "b-0"]


async def test_outcomes_are_on_disk_when_the_courier_was_closed(clock: FakeClock) -> None:
    post = Post(clock)
    post.put(*(row(f"u{n}") for n in range(3)))
    await post.until(lambda: bool(post.sent))
    await post.courier.close()
    assert sorted(one for group in post.groups for one in group) == sorted(post.sent)
