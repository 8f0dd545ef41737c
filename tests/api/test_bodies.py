"""F9: no body is ever a fault of the server; what is wrong with it is named."""

import json
from typing import Any

import pytest

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
