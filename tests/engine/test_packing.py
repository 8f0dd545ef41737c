"""What is packed comes back as it was, whatever its members are."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from task_daemon.core.model import CallbackTarget, Mode, Owner, Progress, State, Task, TaskError
from task_daemon.engine.packing import COMMON, SELDOM, USUAL, Packing
from tests.making import a_task

times = st.floats(0, 2**34)
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
some_json = st.dictionaries(words, st.none() | st.integers(-(2**70), 2**70) | words | st.lists(words), max_size=3)
members: dict[str, st.SearchStrategy[Any]] = {
    "id": words,
    "action": words,
    "zone": words,
    "mode": st.sampled_from(Mode),
    "owner": st.builds(Owner, st.integers(0, 2**32), st.integers(0, 2**32), groups=st.lists(st.integers(0, 9)).map(tuple)),
    "created_at": times,
    "timeout": times,
    "deadline_at": times,
    "job": st.none() | words,
    "params": st.none() | some_json,
    "region_task_id": st.none() | words | st.integers(-(2**60), 2**60),
    "callback": st.none() | st.builds(CallbackTarget, words.map("http://{}".format), secret=st.none() | words.map("k{}".format)),
    "poll_interval": st.none() | times,
    "labels": st.none() | st.dictionaries(words, words),
    "extra": st.none() | some_json,
    "state": st.sampled_from(State),
    "revision": st.integers(1, 2**40),
    "task_seq": st.integers(1, 2**40),
    "progress": st.none() | st.builds(Progress, percent=st.none() | times, done=st.integers(0, 2**70), message=st.none() | words),
    "error": st.none() | st.builds(TaskError, words, words, st.none() | some_json),
    "handle": st.none() | some_json,
    "size": st.none() | st.integers(0, 2**60),
    "misses": st.integers(0, 3),
    **{
        name: st.none() | times
        for name in Task.__struct_fields__
        if name.endswith("_at") and name not in {"created_at", "deadline_at"}
    },
    **{name: st.booleans() for name in ("launched", "adopted", "tidy", "stalled", "size_told", "deleted")},
}


def test_every_member_of_a_task_is_tried_here() -> None:
    assert {"uid", *members} == set(Task.__struct_fields__)


def test_every_member_of_a_task_has_its_place() -> None:
    assert sorted(("uid", *COMMON, *USUAL, *SELDOM)) == sorted(Task.__struct_fields__)


@given(st.lists(st.fixed_dictionaries({}, optional=members), min_size=1, max_size=3))
def test_task_comes_back_as_it_was_when_it_is_unpacked(many: list[dict[str, Any]]) -> None:
    packing = Packing()
    tasks = [a_task(**one) for one in many]
    packed = [packing.pack(task) for task in tasks]

    assert [packing.unpack(task.uid, one) for task, one in zip(tasks, packed, strict=True)] == tasks


@given(st.fixed_dictionaries(members))
def test_version_is_that_of_the_task(one: dict[str, Any]) -> None:
    packing, task = Packing(), a_task(**one)
    version = packing.version(packing.pack(task))

    assert (version.task_seq, version.revision) == (task.task_seq, task.revision)
