"""The parts of the outbox that only a long queue shows: what is not in memory, and how it comes in."""

from collections.abc import Callable

from msgspec.structs import replace

from task_daemon.core.model import Attempt, Delivery, DeliveryState
from task_daemon.core.ports import Delivered, Later, Outcome
from task_daemon.engine.outbox import Outbox


def row(uid: str, target: str = "t", part: int = 0, next_at: float = 0.0, owner: int = 1) -> Delivery:
    return Delivery(
        id=f"{uid}-{part}",
        uid=uid,
        task_seq=2,
        part=part,
        type="task.succeeded",
        via="webhook",
        target=target,
        method="POST",
        url=target,
        body=b"{}",
        owner_uid=owner,
        created_at=0.0,
        next_at=next_at,
    )


def waiting(uid: str, next_at: float, since: float = 0.0) -> Delivery:
    """After one attempt."""
    return replace(row(uid, next_at=next_at), attempts=1, tries=(Attempt(at=since),))


class Disk:
    """What a store does for the outbox: keeps every delivery, reads the first lines of a target."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self.rows: dict[str, Delivery] = {}
        self.sent: list[str] = []
        self.most = 0

    def add(self, *rows: Delivery) -> None:
        self.rows.update((one.id, one) for one in rows)
        self.outbox.add(rows, 0.0)

    def run(self, now: float, answer: Callable[[Delivery], Outcome]) -> None:
        """Send everything that is due, reading what the outbox asks for."""
        for _ in range(100_000):
            taken = self.outbox.take(now)
            for target in list(self.outbox.hungry):
                limit = self.outbox.room(target)
                self.outbox.fill(target, *self._lines(target, limit), now)
            for one in taken:
                outcome = answer(one)
                versions = self.outbox.judge(one, outcome, now)
                self.rows.update((version.id, version) for version in versions)
                self.sent.append(one.id)
                self.outbox.answered(one, outcome, now)
                self.outbox.settle(one, versions)
            self.most = max(self.most, self.outbox.counts()["in_memory"])
            if not taken and self.outbox.next_due() > now:
                return
        raise AssertionError("the outbox does not come to rest")

    def _lines(self, target: str, limit: int) -> tuple[list[Delivery], float]:
        pending = [one for one in self.rows.values() if one.state is DeliveryState.PENDING]
        first = sorted((one for one in pending if one.target == target), key=lambda one: one.next_at)[:limit]
        uids = dict.fromkeys(one.uid for one in first)
        return [one for uid in uids for one in pending if one.uid == uid], first[-1].next_at if len(first) == limit else float(
            "inf"
        )


def accepted(_row: Delivery) -> Outcome:
    return Delivered(Attempt(at=0.0))


def down(_row: Delivery) -> Outcome:
    return Later(Attempt(at=0.0), 3600.0)


def missing(_row: Delivery) -> Outcome:
    return Later(Attempt(at=0.0), 3600.0, target_down=False)


def test_everything_is_sent_once_and_in_order_when_it_does_not_fit_into_memory() -> None:
    disk = Disk(Outbox(capacity=20))
    disk.add(*(row(f"u{n}", part=part) for n in range(200) for part in range(2)))
    disk.run(0.0, accepted)
    assert sorted(disk.sent) == sorted(disk.rows)
    assert all(disk.sent.index(f"u{n}-0") < disk.sent.index(f"u{n}-1") for n in range(200))
    assert disk.most <= 2 * 20 + 8


def test_memory_stays_small_and_others_go_out_when_a_target_with_a_long_queue_is_down() -> None:
    disk = Disk(Outbox(capacity=50))
    disk.add(*(row(f"dead{n}", "dead") for n in range(2000)))
    disk.run(0.0, down)
    disk.add(*(row(f"good{n}", "good") for n in range(200)))
    disk.run(1.0, accepted)
    assert sum(1 for sent in disk.sent if sent.startswith("good")) == 200
    assert disk.most <= 150


def test_due_lines_of_the_store_are_read_when_those_in_memory_all_wait() -> None:
    disk = Disk(Outbox(capacity=10))
    disk.add(*(row(f"u{n}") for n in range(100)))
    disk.run(0.0, missing)
    assert len(disk.sent) == 100
    disk.run(3600.0, accepted)
    assert len(disk.sent) == 200


def test_stored_deliveries_are_found_when_the_outbox_starts_empty() -> None:
    disk = Disk(Outbox())
    disk.rows = {one.id: one for one in (row("a"), row("b", "other"), waiting("c", 50.0))}
    disk.outbox.discover(["t", "other"])
    disk.run(0.0, accepted)
    assert sorted(disk.sent) == ["a-0", "b-0"]
    disk.run(50.0, accepted)
    assert sorted(disk.sent) == ["a-0", "b-0", "c-0"]


def test_answered_delivery_does_not_come_back_when_an_older_reading_still_has_it() -> None:
    outbox = Outbox()
    outbox.add([row("a")], 0.0)
    outbox.discover(["t"])
    (taken,) = outbox.take(0.0)
    assert outbox.take(0.0) == []
    outbox.hungry.add("t")
    outbox.room("t")
    versions = outbox.judge(taken, accepted(taken), 0.0)
    outbox.answered(taken, accepted(taken), 0.0)
    outbox.settle(taken, versions)
    outbox.fill("t", [row("a"), row("b")], float("inf"), 0.0)
    assert [one.id for one in outbox.take(0.0)] == ["b-0"]


def test_earlier_delivery_waits_for_the_flight_of_a_later_one_when_it_is_revived() -> None:
    outbox = Outbox()
    outbox.add([row("a", part=1)], 0.0)
    (taken,) = outbox.take(0.0)
    outbox.revive([row("a", part=0)], 0.0)
    assert outbox.take(0.0) == []
    versions = outbox.judge(taken, accepted(taken), 0.0)
    outbox.answered(taken, accepted(taken), 0.0)
    outbox.settle(taken, versions)
    assert [one.id for one in outbox.take(0.0)] == ["a-0"]


def test_revived_delivery_keeps_the_outcome_of_its_flight() -> None:
    outbox = Outbox()
    outbox.add([row("a")], 0.0)
    (taken,) = outbox.take(0.0)
    outbox.revive([replace(taken, attempts=0)], 0.0)
    versions = outbox.judge(taken, accepted(taken), 0.0)
    outbox.answered(taken, accepted(taken), 0.0)
    outbox.settle(taken, versions)
    assert outbox.take(0.0) == []
    assert outbox.counts()["targets"] == 0


DAY = 86_400.0


def test_delivery_waits_no_longer_than_planned_when_the_wall_clock_was_set_back_while_it_was_in_the_store() -> None:
    outbox = Outbox()
    outbox.discover(["t"])
    outbox.room("t")
    outbox.fill("t", [waiting("retried", DAY + 60, since=DAY), row("new", next_at=DAY)], float("inf"), 1000.0)

    assert [one.id for one in outbox.take(1000.0)] == ["new-0"]
    assert [one.id for one in outbox.take(1060.0)] == ["retried-0"]


def test_delivery_does_not_wait_anew_when_the_store_is_read_once_more() -> None:
    outbox = Outbox(capacity=1)
    stored = waiting("a", DAY + 60, since=DAY)
    for now in (0.0, 30.0, 59.0):
        outbox.discover(["t"])
        outbox.room("t")
        outbox.fill("t", [stored], float("inf"), now)

    assert [one.id for one in outbox.take(60.0)] == ["a-0"]


def test_store_is_read_again_before_its_own_due_time_when_that_may_be_from_another_clock() -> None:
    outbox = Outbox()
    outbox.discover(["t"])
    outbox.room("t")
    outbox.fill("t", [], DAY, 0.0)
    outbox.take(301.0)

    assert outbox.hungry == {"t"}


def test_everything_in_memory_keeps_its_wait_when_the_wall_clock_is_set_back() -> None:
    outbox = Outbox()
    outbox.add([row("held", "down")], DAY)
    for _ in range(5):
        (taken,) = outbox.take(DAY)
        gone_wrong = Later(Attempt(at=DAY), 0.0)
        versions = outbox.judge(taken, gone_wrong, DAY)
        outbox.answered(taken, gone_wrong, DAY)
        outbox.settle(taken, versions)
    outbox.add([waiting("retried", DAY + 60, since=DAY)], DAY)
    outbox.set_back(DAY)

    assert outbox.take(29.0) == []
    assert [one.id for one in outbox.take(30.0)] == ["held-0"]  # the probe
    assert outbox.take(59.0) == []
    assert [one.id for one in outbox.take(60.0)] == ["retried-0"]


def test_owner_can_wake_its_callbacks_at_once_when_the_wall_clock_was_set_back() -> None:
    outbox = Outbox()
    outbox.add([waiting("a", DAY + 3600, since=DAY)], DAY)
    outbox.wake(1, DAY)
    outbox.set_back(DAY)
    outbox.add([waiting("b", 3600.0)], 2.0)
    outbox.wake(1, 2.0)

    assert sorted(one.id for one in outbox.take(2.0)) == ["a-0", "b-0"]
