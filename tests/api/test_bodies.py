"""F9: no body is ever a fault of the server; what is wrong with it is named."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from task_daemon.api import bodies
from task_daemon.core.errors import InvalidBody
from task_daemon.core.model import State

GOOD: dict[str, Any] = {"id": "d-1", "action": "backup", "zone": "play"}


def raw(**members: Any) -> bytes:
    return json.dumps(GOOD | members).encode()


def refusal(body: bytes) -> InvalidBody:
    with pytest.raises(InvalidBody) as caught:
        bodies.registration(body)
    return caught.value


def wrong(**members: Any) -> dict[str, str]:
    return dict(refusal(raw(**members)).members)


def test_a_registration_is_read() -> None:
    found = bodies.registration(raw(params={"a": [1, None, 2.5]}, region_task_id=7, labels={"k": "v"}))

    assert found.draft.id == "d-1"
    assert found.draft.params == {"a": [1, None, 2.5]}
    assert found.draft.region_task_id == 7
    assert found.extra is None


NO_OBJECTS = {
    "nothing": (b"", "it is empty"),
    "spaces": (b"  \n", "it is empty"),
    "a list": (b"[]", "no JSON object"),
    "a string": (b'"x"', "no JSON object"),
    "null": (b"null", "no JSON object"),
    "half": (b'{"id": "a"', "not JSON"),
    "two values": (b"{} {}", "not JSON"),
    "not UTF-8": (b'{"id": "\xff\xfe", "action": "a", "zone": "z"}', "not UTF-8"),
    "NaN": (b'{"id": "a", "action": "a", "zone": "z", "timeout": NaN}', "not JSON"),
    "infinity": (b'{"id": "a", "action": "a", "zone": "z", "timeout": -Infinity}', "not JSON"),
    "a huge number": (b'{"id": "a", "action": "a", "zone": "z", "timeout": 1e999}', "out of range"),
    "an endless number": (b'{"id": "a", "action": "a", "zone": "z", "timeout": ' + b"9" * 5000 + b"}", "out of range"),
    "half a surrogate": (b'{"id": "\\ud800", "action": "a", "zone": "z"}', "not JSON"),
    "a bottomless list": (b"[" * 200_000, "nested deeper"),
    "a bottomless object": (b'{"a":' * 40_000, "nested deeper"),
    "deep params": (raw(params={"a": 0}).replace(b"0", b"[" * 100 + b"]" * 100), "nested deeper"),
    "a name twice": (b'{"id": "a", "action": "a", "zone": "z", "id": "b"}', "'id' is there twice"),
    "a name twice inside": (b'{"id": "a", "action": "a", "zone": "z", "params": {"x": {"y": 1, "y": 2}}}', "'y' is there twice"),
    "a name twice, quotes": (
        b'{"id": "' + 4 * rb"\u0022" + b'", "action": "a", "zone": "z", "zone": "b"}',
        "'zone' is there twice",
    ),
    "a name twice, escaped": (b'{"id": "a", "action": "a", "zone": "z", "i\\u0064": "b"}', "'id' is there twice"),
}


@pytest.mark.parametrize("kind", NO_OBJECTS)
def test_f9_a_body_that_is_no_object_is_refused_with_a_sentence(kind: str) -> None:
    body, says = NO_OBJECTS[kind]

    assert says in refusal(body).detail


@pytest.mark.parametrize("kind", NO_OBJECTS)
@pytest.mark.parametrize("read", [bodies.old_registration, bodies.batch, lambda body: bodies.small(body, bodies.Resolve)])
def test_f9_no_other_body_is_read_more_kindly(kind: str, read: Any) -> None:
    with pytest.raises(InvalidBody):
        read(NO_OBJECTS[kind][0])


def test_brackets_in_strings_are_no_nesting() -> None:
    text = '[[{"\\' * 40

    assert bodies.registration(raw(id=text)).draft.id == text


def test_f9_every_missing_member_is_named() -> None:
    assert dict(refusal(b"{}").members) == {"/id": "is required", "/action": "is required", "/zone": "is required"}


def test_every_wrong_member_is_named_at_once() -> None:
    found = wrong(id=5, timeout="soon", nonsense=1, labels={"a": 1}, callback={"url": 7, "evil": 1})

    assert set(found) == {"/id", "/timeout", "/nonsense", "/labels/*", "/callback/url", "/callback/evil"}
    assert found["/id"] == "expected `str`, got `int`"
    assert "x_" in found["/nonsense"]


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("id", ""),
        ("id", "a" * 256),
        ("id", "a\nb"),
        ("id", None),
        ("zone", 1),
        ("params", []),
        ("region_task_id", True),
        ("region_task_id", 1.5),
        ("timeout", 0),
        ("timeout", 31_536_001),
        ("poll_interval", 0.01),
        ("labels", {str(number): "x" for number in range(17)}),
        ("callback", "http://x"),
    ],
)
def test_a_member_out_of_its_bounds_is_named(member: str, value: Any) -> None:
    (pointer,) = wrong(**{member: value})

    assert pointer.startswith(f"/{member}")


def test_a_name_with_a_slash_is_escaped_in_its_pointer() -> None:
    assert set(wrong(**{"a/b~c": 1})) == {"/a~1b~0c"}


def test_members_with_x_are_kept() -> None:
    found = bodies.registration(raw(x_ticket={"number": 5}, x_note=None))

    assert found.extra == {"x_ticket": {"number": 5}, "x_note": None}
    assert found.draft.id == "d-1"


def test_many_or_large_members_with_x_are_refused() -> None:
    assert "at most 16" in str(wrong(**{f"x_{number}": 1 for number in range(17)}))
    assert "4096 bytes" in str(wrong(x_large="a" * 5000))


def test_the_old_body_is_read_with_members_that_nobody_knows() -> None:
    found = bodies.old_registration(raw(region_task_id="t", params={"a": 1}, whatever=1))

    assert (found.draft.id, found.draft.region_task_id, found.draft.params, found.extra) == ("d-1", "t", None, None)


@pytest.mark.parametrize("missing", ["id", "zone", "action"])
def test_f9_an_old_body_without_a_member_is_refused(missing: str) -> None:
    body = json.dumps({name: value for name, value in GOOD.items() if name != missing}).encode()

    with pytest.raises(InvalidBody, match=f"/{missing}: is required"):
        bodies.old_registration(body)


def test_a_batch_is_read_in_its_order() -> None:
    found = bodies.batch(json.dumps({"tasks": [GOOD | {"id": "a"}, GOOD | {"id": "b", "x_y": 1}]}).encode())

    assert [(each.draft.id, each.extra) for each in found] == [("a", None), ("b", {"x_y": 1})]


@pytest.mark.parametrize("name", ["params", r"par\u0061ms"])
def test_f9_an_entry_of_a_batch_is_no_deeper_than_other_bodies(name: str) -> None:
    body = (
        json.dumps({"tasks": [GOOD, GOOD | {"params": {"a": 0}}]})
        .replace(" 0}", f" {'[' * 40 + ']' * 40}}}")
        .replace("params", name)
    )

    with pytest.raises(InvalidBody, match="nested deeper than 32"):
        bodies.batch(body.encode())


def test_the_wrong_entry_of_a_batch_is_named() -> None:
    with pytest.raises(InvalidBody) as caught:
        bodies.batch(json.dumps({"tasks": [GOOD, GOOD | {"id": 7}, {}]}).encode())

    assert caught.value.extra == {"index": 1}
    assert [pointer for pointer, _ in caught.value.members] == ["/tasks/1/id"]
    assert "task 1 of the batch" in caught.value.detail


@pytest.mark.parametrize("tasks", [None, {}, [], [GOOD] * 1001, [5]])
def test_a_batch_of_no_or_too_many_or_no_registrations_is_refused(tasks: Any) -> None:
    with pytest.raises(InvalidBody):
        bodies.batch(json.dumps({"tasks": tasks}).encode())


def test_a_small_body_may_be_left_out_when_everything_is_optional() -> None:
    assert bodies.small(b"", bodies.Cancel) == bodies.Cancel(stop_tracking=False)
    with pytest.raises(InvalidBody, match="/state: is required"):
        bodies.small(b"", bodies.Resolve)


def test_a_small_body_names_what_is_wrong() -> None:
    with pytest.raises(InvalidBody) as caught:
        bodies.small(b'{"state": "cancelled", "why": 1}', bodies.Resolve)

    assert {pointer for pointer, _ in caught.value.members} == {"/state", "/why"}


def test_a_resolution_says_a_final_state() -> None:
    assert bodies.small(b'{"state": "failed"}', bodies.Resolve).final is State.FAILED


class Pairs(list[tuple[str, Any]]):
    """An object whose names may be there more than once."""


def text_of(value: Any) -> str:
    if isinstance(value, Pairs):
        return "{" + ",".join(f"{json.dumps(name, ensure_ascii=False)}: {text_of(each)}" for name, each in value) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(text_of, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def has_twice(value: Any) -> bool:
    if isinstance(value, Pairs):
        return len({name for name, _ in value}) < len(value) or any(has_twice(each) for _, each in value)
    return isinstance(value, list) and any(map(has_twice, value))


def members_from(**kinds: st.SearchStrategy[Any]) -> st.SearchStrategy[Pairs]:
    """Some of these members, in any order, sometimes one of them twice."""
    member = st.sampled_from(sorted(kinds)).flatmap(lambda name: st.tuples(st.just(name), kinds[name]))
    return st.lists(member, max_size=4).map(Pairs)


WORD = st.sampled_from(["a", "é", ":null", '":null', "finished", '"events":["finished"]', "\\", '"', "x,y", "{[", "\x7f"])
ANY = st.recursive(
    WORD | st.none() | st.integers(-9, 9) | st.booleans(),
    lambda inner: st.lists(inner, max_size=2) | st.lists(st.tuples(WORD, inner), max_size=3).map(Pairs),
    max_leaves=4,
)
CALLBACKS = members_from(
    events=st.lists(st.sampled_from(["finished", "size"]), max_size=2), secret=st.none() | WORD, url=WORD
).map(lambda found: Pairs([("url", "http://h/"), *found]))
MEMBERS = members_from(
    id=WORD.filter(lambda word: "\x7f" not in word),
    job=st.none() | WORD,
    params=st.none() | st.lists(st.tuples(WORD, ANY), max_size=3).map(Pairs),
    region_task_id=st.none() | WORD | st.integers(0, 9),
    callback=st.none() | CALLBACKS,
    timeout=st.none() | st.integers(1, 9),
    labels=st.none() | st.lists(st.tuples(WORD, WORD), max_size=3).map(Pairs),
)
ENTRIES = MEMBERS.map(lambda found: Pairs([("action", "backup"), ("zone", "play"), *found]))


def outcome(read: Any, body: bytes) -> str | None:
    try:
        read(body)
    except InvalidBody as refused:
        return refused.detail
    return None


@given(st.lists(ENTRIES.map(lambda found: Pairs([("id", "d"), *found])) | ENTRIES, min_size=1, max_size=3))
def test_a_name_twice_is_found_wherever_it_is_and_nothing_else_is_taken_for_one(entries: list[Pairs]) -> None:
    """However the text is read: what has every required member and no name twice is accepted."""
    for entry in entries:
        found = outcome(bodies.registration, text_of(entry).encode())
        assert ("is there twice" in (found or "")) is has_twice(entry)
        assert (found is None) is (not has_twice(entry) and "id" in dict(entry))
    batch = Pairs([("tasks", entries)])
    found = outcome(bodies.batch, text_of(batch).encode())
    assert ("is there twice" in (found or "")) is has_twice(batch)
    assert (found is None) is (not has_twice(batch) and all("id" in dict(entry) for entry in entries))


def test_usual_texts_are_not_read_a_second_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking for names that are there twice costs as much as all the rest of reading."""
    monkeypatch.setattr(bodies, "_check_names", lambda raw: pytest.fail(f"read again: {raw!r}"))
    callback = {"url": "http://127.0.0.1:9/:null", "secret": "blue"}
    entries: list[dict[str, Any]] = [
        GOOD,
        GOOD | {"params": {"argv": ["a", {"b": 1}]}, "labels": {"a": "b:c"}, "timeout": 5, "poll_interval": 0.5},
        GOOD | {"job": "j", "region_task_id": 7, "callback": callback},
        GOOD | {"region_task_id": "r", "callback": callback | {"events": ["size", "finished"]}},
    ]
    for entry in entries:
        bodies.registration(json.dumps(entry).encode())
    bodies.batch(json.dumps({"tasks": entries}).encode())
