"""What every engine must do when tasks are registered."""

import asyncio

import pytest

from task_daemon.core.errors import Conflict, IdempotencyKeyReused
from task_daemon.core.model import Owner, State
from task_daemon.core.ports import NewTask, Tell
from tests.contract.engine_case import Case, a_task


async def test_i1_f2_task_is_there_after_reopening_when_it_was_added(case: Case) -> None:
    task = a_task(labels={"a": "b"}, region_task_id=17)
    await case.register(task)
    await case.reopen()
    assert await case.engine.load(task.uid) == task
    assert case.engine.get(task.uid) == task


async def test_f10_same_registration_is_replayed_when_the_task_is_live(case: Case) -> None:
    first, again = a_task(), a_task()
    await case.register(first)
    (answer,) = await case.engine.add([NewTask(again)])
    assert (answer.replayed, answer.task.uid) == (True, first.uid)
    assert case.engine.tally() == {("z1", "backup", "queued"): 1}


async def test_f10_known_ones_are_counted_and_nothing_is_stored(case: Case) -> None:
    await case.engine.add([NewTask(a_task(id="known"), "key", "print")])
    asked = [NewTask(a_task(id="known")), NewTask(a_task(id="new")), NewTask(a_task(id="new")), NewTask(a_task(), "key", "print")]
    assert await case.engine.known(asked) == 3, "the second of the new ones would be a replay of the first"
    assert await case.engine.known([NewTask(a_task(id="new"))]) == 0
    with pytest.raises(Conflict):
        await case.engine.known([NewTask(a_task(id="known", timeout=5.0))])
    assert case.engine.tally() == {("z1", "backup", "queued"): 1}


async def test_registration_makes_a_new_task_when_the_earlier_one_has_ended(case: Case) -> None:
    first = a_task()
    await case.register(first)
    await case.end(first)
    (answer,) = await case.engine.add([NewTask(a_task())])
    assert not answer.replayed


async def test_conflict_names_members_and_nothing_is_stored_when_one_of_a_batch_differs(case: Case) -> None:
    known = a_task(id="known")
    await case.register(known)
    with pytest.raises(Conflict) as refused:
        await case.engine.add([NewTask(a_task(id="other")), NewTask(a_task(id="known", timeout=5.0))])
    assert refused.value.extra == {"index": 1, "uid": known.uid}
    assert [pointer for pointer, _ in refused.value.members] == ["/timeout"]
    assert case.engine.tally() == {("z1", "backup", "queued"): 1}
    assert [event.uid for event in await case.engine.events(0, 10)] == [known.uid]


@pytest.mark.parametrize("count", [1, 100])
async def test_what_can_be_made_ready_is_asked_for_once_and_before_the_answer(case: Case, count: int) -> None:
    tasks = [a_task(id=f"disk-{n}") for n in range(count)]
    told: list[tuple[int, float | None]] = []

    def meanwhile() -> None:
        asyncio.get_running_loop()  # nowhere else
        told.append((case.engine.live(), case.engine.first_poll(tasks[0], count)))

    await case.engine.add([NewTask(task) for task in tasks], meanwhile)
    after = case.engine.times(tasks[0]).next_poll_at
    assert (told, case.engine.live()) == ([(0, after)], count)
    assert after is not None


async def test_nobody_is_told_before_the_return_of_what_is_there_already(case: Case) -> None:
    told: list[str] = []

    def meanwhile() -> Tell:
        return lambda: told.append("early")

    await case.engine.add([NewTask(a_task(id="known"))])
    for turn in range(3):
        for number in range(6):  # so many that the local engine commits on the loop, if the disk is quick
            await case.engine.add([NewTask(a_task(id=f"d-{turn}-{number}"))])
        await case.engine.add([NewTask(a_task(id="known"))], meanwhile)
        await case.engine.add([NewTask(a_task(id=name)) for name in ("known", "new")], meanwhile)
        with pytest.raises(Conflict):
            await case.engine.add([NewTask(a_task(id="known", timeout=61.0))], meanwhile)
    assert told == []


async def test_duplicate_is_replayed_when_it_is_in_the_same_batch(case: Case) -> None:
    one, other = await case.engine.add([NewTask(a_task(), "k", "f"), NewTask(a_task(), "k", "f")])
    assert other.replayed
    assert one.task.uid == other.task.uid


async def test_key_answers_the_same_task_when_that_has_ended_and_after_reopening(case: Case) -> None:
    first = a_task()
    await case.engine.add([NewTask(first, "key-1", "body")])
    await case.end(first)
    await case.reopen()
    (answer,) = await case.engine.add([NewTask(a_task(), "key-1", "body")])
    assert (answer.replayed, answer.task.uid, answer.task.state) == (True, first.uid, State.SUCCEEDED)
    with pytest.raises(IdempotencyKeyReused):
        await case.engine.add([NewTask(a_task(), "key-1", "other body")])
    (another_owner,) = await case.engine.add([NewTask(a_task(id="x", owner=Owner(1, 1)), "key-1", "other body")])
    assert not another_owner.replayed


async def test_second_key_of_the_same_work_answers_the_same_task_when_that_has_ended(case: Case) -> None:
    first = a_task()
    await case.engine.add([NewTask(first, "key-1", "body")])
    await case.engine.add([NewTask(a_task(), "key-2", "body 2"), NewTask(a_task(), "key-3", "body")])
    await case.end(first)
    await case.reopen()
    for key, body in (("key-1", "body"), ("key-2", "body 2"), ("key-3", "body")):
        asked = [NewTask(a_task(), key, body)]
        (answer,) = await case.engine.add(asked)
        assert (answer.replayed, answer.task.uid) == (True, first.uid), key
        answers = await asyncio.gather(case.engine.add(asked), case.engine.add([NewTask(a_task(id=f"beside {key}"))]))
        assert [answer.task.uid == first.uid for (answer,) in answers] == [True, False], "in a commit with others"
    with pytest.raises(IdempotencyKeyReused):
        await case.engine.add([NewTask(a_task(), "key-2", "body")])


async def test_registration_event_is_told_and_numbered_when_added(case: Case) -> None:
    await case.register(a_task(id="a"), a_task(id="b"))
    events = await case.engine.events(0, 10)
    assert [(event.seq, event.type) for event in events] == [(1, "task.registered"), (2, "task.registered")]
    assert [event for _, some in case.told for event in some] == events
