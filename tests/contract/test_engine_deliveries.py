"""What every engine must do with deliveries: order, groups, lanes, the breaker, retries, and what people do with them."""

import asyncio

import pytest
from msgspec.structs import replace

from task_daemon.core.errors import NotFound
from task_daemon.core.model import Change, Delivery, DeliveryState, Event, Owner, Task
from task_daemon.core.ports import Backlog, Later
from tests.contract.engine_case import Case, a_delivery, a_task, finished


async def ended(case: Case, count: int = 1) -> list[Delivery]:
    """`count` tasks have ended, with one delivery each."""
    tasks = await case.register(*(a_task(id=f"d{n}") for n in range(count)))
    rows = [a_delivery(task) for task in tasks]
    await case.engine.change([finished(task, case.clock.now(), row) for task, row in zip(tasks, rows, strict=True)])
    return rows


def noted(task: Task, *rows: Delivery) -> Change:
    """An event with deliveries that does not end the task."""
    seq = task.task_seq + 1
    after = replace(task, task_seq=seq, revision=task.revision + 1)
    return Change(task, after, (Event(task.uid, "task.size", task.created_at, seq),), rows)


async def state_of(case: Case, row: Delivery) -> Delivery:
    stored = await case.engine.delivery(row.id)
    assert stored is not None
    return stored


async def test_delivery_goes_out_at_once_when_the_task_ends(case: Case) -> None:
    (row,) = await ended(case)
    await case.engine.idle()
    stored = await state_of(case, row)
    assert (case.sent_ids(), stored.state, stored.attempts, stored.body) == ([row.id], DeliveryState.DELIVERED, 1, row.body)
    assert stored.tries[0].status == 200
    assert await case.engine.callback_counts([row.uid]) == {row.uid: {"pending": 0, "delivered": 1, "dead": 0}}


async def test_f4_delivery_is_tried_later_when_it_was_not_accepted(case: Case) -> None:
    case.answers = case.down
    (row,) = await ended(case)
    await case.engine.idle()
    await case.advance(4.9)
    assert len(case.sent) == 1
    case.answers = case.accepted
    await case.advance(0.1)
    stored = await state_of(case, row)
    assert (len(case.sent), stored.attempts, stored.state) == (2, 2, DeliveryState.DELIVERED)
    assert case.sent[1].attempts == 1


async def test_f4_delivery_goes_out_after_reopening_when_it_was_pending(case: Case) -> None:
    case.answers = case.down
    (row,) = await ended(case)
    await case.engine.idle()
    case.answers = case.accepted
    await case.reopen()
    assert len(case.sent) == 1
    await case.advance(5)
    assert case.sent_ids() == [row.id, row.id]


async def test_i4_same_id_is_sent_again_when_the_engine_stopped_before_the_answer(case: Case) -> None:
    case.gates["http://one"] = asyncio.get_running_loop().create_future()
    (row,) = await ended(case)
    while not case.sent:
        await asyncio.sleep(0)
    await case.engine.close()
    case.gates.clear()
    if case.kind == "local":
        case.engine = case._make()
    await case.open()
    assert case.sent_ids() == [row.id, row.id]


async def test_i4_later_part_waits_when_an_earlier_one_was_not_accepted(case: Case) -> None:
    case.answers = lambda row: case.down(row) if row.part == 0 else case.accepted(row)
    (task,) = await case.register(a_task())
    await case.end(task, a_delivery(task, 0), a_delivery(task, 1))
    await case.advance(5)
    assert [row.part for row in case.sent] == [0, 0]
    case.answers = case.accepted
    await case.advance(5)
    assert [row.part for row in case.sent] == [0, 0, 0, 1]


async def test_i4_later_event_waits_when_an_earlier_one_is_being_retried(case: Case) -> None:
    case.answers = lambda row: case.down(row) if row.task_seq == 2 else case.accepted(row)
    (task,) = await case.register(a_task())
    await case.engine.change([noted(task, a_delivery(task, target="http://a"))])
    latest = case.engine.get(task.uid)
    assert latest is not None
    await case.end(latest, a_delivery(latest, target="http://b"))
    await case.advance(5)
    assert [row.task_seq for row in case.sent] == [2, 2]
    case.answers = case.accepted
    await case.advance(5)
    assert [row.task_seq for row in case.sent] == [2, 2, 2, 3]


async def test_later_parts_are_dead_but_other_events_go_on_when_a_part_is_refused(case: Case) -> None:
    case.answers = lambda row: case.refused(row) if (row.task_seq, row.part) == (2, 0) else case.accepted(row)
    (task,) = await case.register(a_task())
    first, second = a_delivery(task, 0), a_delivery(task, 1)
    await case.engine.change([noted(task, first, second)])
    latest = case.engine.get(task.uid)
    assert latest is not None
    await case.end(latest, a_delivery(latest))
    assert [(row.task_seq, row.part) for row in case.sent] == [(2, 0), (3, 0)]
    held = await state_of(case, second)
    assert held.state is DeliveryState.DEAD
    assert first.id in (held.tries[-1].error or "")
    assert await case.engine.callback_counts([task.uid]) == {task.uid: {"pending": 0, "delivered": 1, "dead": 2}}


async def test_redeliver_revives_the_delivery_and_those_held_back_behind_it(case: Case) -> None:
    case.answers = case.refused
    (task,) = await case.register(a_task())
    first, second = a_delivery(task, 0), a_delivery(task, 1)
    await case.end(task, first, second)
    case.answers = case.accepted
    again = await case.engine.redeliver(first.id)
    assert (again.id, again.state, again.attempts) == (first.id, DeliveryState.PENDING, 0)
    await case.engine.idle()
    assert case.sent_ids() == [first.id, first.id, second.id]
    assert {row.state for row in await case.engine.deliveries(task.uid)} == {DeliveryState.DELIVERED}
    with pytest.raises(NotFound):
        await case.engine.redeliver("nothing")


async def test_acknowledged_delivery_is_never_sent_again_and_lets_the_next_go(case: Case) -> None:
    case.answers = lambda row: case.down(row) if row.part == 0 else case.accepted(row)
    (task,) = await case.register(a_task())
    first, second = a_delivery(task, 0), a_delivery(task, 1)
    await case.end(task, first, second)
    assert (await case.engine.acknowledge(first.id)).state is DeliveryState.ACKED
    await case.engine.idle()
    await case.advance(60)
    assert case.sent_ids() == [first.id, second.id]
    assert (await case.engine.callback_counts([task.uid]))[task.uid]["delivered"] == 2
    with pytest.raises(NotFound):
        await case.engine.acknowledge("nothing")


async def test_acknowledgement_stands_when_the_delivery_is_being_sent(case: Case) -> None:
    case.gates["http://one"] = asyncio.get_running_loop().create_future()
    case.answers = case.down
    (row,) = await ended(case)
    while not case.sent:
        await asyncio.sleep(0)
    await case.engine.acknowledge(row.id)
    case.gates.pop("http://one").set_result(None)
    await case.engine.idle()
    await case.advance(60)
    assert (len(case.sent), (await state_of(case, row)).state) == (1, DeliveryState.ACKED)


async def test_target_gets_four_at_a_time_and_all_together_thirty_two(case: Case) -> None:
    loop = asyncio.get_running_loop()
    tasks = await case.register(*(a_task(id=f"d{n}") for n in range(60)))
    for n in range(10):
        case.gates[f"http://t{n}"] = loop.create_future()
    rows = [a_delivery(task, target=f"http://t{n % 10}") for n, task in enumerate(tasks)]
    await case.engine.change([finished(task, case.clock.now(), row) for task, row in zip(tasks, rows, strict=True)])
    while len(case.sent) < 32:
        await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)
    by_target = [sum(1 for row in case.sent if row.target == target) for target in case.gates]
    assert (len(case.sent), max(by_target)) == (32, 4)
    for gate in case.gates.values():
        gate.set_result(None)
    await case.engine.idle()
    assert len(case.sent) == 60


async def test_dead_target_is_probed_every_30_seconds_and_delays_no_other(case: Case) -> None:
    case.answers = lambda row: case.accepted(row) if row.target == "http://other" else case.down(row, 1.0)
    await ended(case, 8)
    await case.engine.idle()
    before = len(case.sent)
    assert case.engine.status()["outbox"]["held"] == ["http://one"]
    await case.advance(29)
    assert len(case.sent) == before
    (task,) = await case.register(a_task(id="other"))
    await case.end(task, a_delivery(task, target="http://other"))
    assert case.sent[-1].target == "http://other"
    await case.advance(1)
    assert len(case.sent) == before + 2  # the other one, and one probe
    case.answers = case.accepted
    await case.advance(30)
    assert case.engine.status()["outbox"]["in_memory"] == 0


async def test_answer_that_is_no_failure_of_the_target_does_not_hold_it(case: Case) -> None:
    case.answers = lambda row: Later(case.attempt(404), 3600.0, target_down=False)
    rows = await ended(case, 20)
    await case.engine.idle()
    assert len(case.sent) == len(rows)
    assert case.engine.status()["outbox"]["held"] == []


async def test_exception_of_the_sender_counts_as_not_accepted(case: Case) -> None:
    def broken(row: Delivery) -> Later:
        raise RuntimeError("no such thing")

    case.answers = broken
    (row,) = await ended(case)
    await case.engine.idle()
    stored = await state_of(case, row)
    assert (stored.state, stored.next_at) == (DeliveryState.PENDING, case.clock.now() + 60)
    assert "no such thing" in (stored.tries[0].error or "")


async def test_waiting_deliveries_go_out_when_their_owner_is_alive_at_most_once_a_second(case: Case) -> None:
    case.answers = lambda row: case.down(row, 3600.0)
    await ended(case, 1)
    await case.engine.idle()
    case.engine.wake_owner(4)
    await case.engine.idle()
    assert len(case.sent) == 1
    case.engine.wake_owner(1000)
    await case.engine.idle()
    assert len(case.sent) == 2
    case.engine.wake_owner(1000)
    await case.engine.idle()
    assert len(case.sent) == 2
    await case.advance(1)
    case.engine.wake_owner(1000)
    await case.engine.idle()
    assert len(case.sent) == 3


async def test_held_target_is_probed_now_when_the_owner_is_alive(case: Case) -> None:
    case.answers = case.down
    await ended(case, 6)
    await case.engine.idle()
    assert case.engine.status()["outbox"]["held"] == ["http://one"]
    before = len(case.sent)
    case.answers = case.accepted
    case.engine.wake_owner(1000)
    await case.engine.idle()
    assert len(case.sent) == before + 6
    assert case.engine.status()["outbox"]["held"] == []


async def test_deliveries_are_listed_newest_first_by_state_owner_and_place(case: Case) -> None:
    case.answers = lambda row: case.refused(row) if row.owner_uid == 7 else case.accepted(row)
    one, other = await case.register(a_task(id="a"), a_task(id="b", owner=Owner(7, 7)))
    first = a_delivery(one)
    second = a_delivery(other)
    await case.end(one, first)
    await case.end(other, second)
    assert [row.id for row in await case.engine.deliveries()] == [second.id, first.id]
    assert [row.id for row in await case.engine.deliveries(state="dead")] == [second.id]
    assert [row.id for row in await case.engine.deliveries(owner_uid=1000)] == [first.id]
    assert [row.id for row in await case.engine.deliveries(before=second.id)] == [first.id]
    assert len(await case.engine.deliveries(limit=1)) == 1
    assert await case.engine.delivery("nothing") is None


async def test_the_backlog_is_what_is_pending_and_dead_and_since_when(case: Case) -> None:
    assert await case.engine.backlog() == Backlog()
    case.answers = lambda row: case.refused(row) if row.target == "http://dead" else case.down(row, 1e6)
    (task,) = await case.register(a_task(id="dead"))
    await case.end(task, a_delivery(task, target="http://dead"))
    rows = await ended(case, 2)
    await case.engine.idle()

    assert await case.engine.backlog() == Backlog(pending=2, dead=1, oldest=min(row.created_at for row in rows))
    assert dict(case.engine.measures.attempts) == {("webhook", "refused"): 1, ("webhook", "later"): 2}
