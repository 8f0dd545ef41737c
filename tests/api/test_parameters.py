"""Query parameters: strict, and named when wrong."""

from collections.abc import Callable
from typing import Any

import pytest

from task_daemon.api.parameters import Parameters, page_token
from task_daemon.core.errors import InvalidBody


def read(**given: str) -> Parameters:
    return Parameters({name: [value.encode()] for name, value in given.items()}, ("a", "page_token"))


def test_an_unknown_parameter_is_named() -> None:
    with pytest.raises(InvalidBody) as caught:
        read(b="1")

    assert [pointer for pointer, _ in caught.value.members] == ["?b"]
    assert "a, page_token" in caught.value.detail


@pytest.mark.parametrize(
    ("value", "take", "expected"),
    [
        ("x", lambda p: p.text("a"), "x"),
        ("2.5", lambda p: p.number("a", 0, 0, 300), 2.5),
        ("17", lambda p: p.integer("a", 1, 500), 17),
        ("true", lambda p: p.flag("a"), True),
        ("false", lambda p: p.flag("a"), False),
        ("on", lambda p: p.choices("a", ["on", "off"]), ("on",)),
        ("k:v:w", lambda p: p.pairs("a"), (("k", "v:w"),)),
        ("2027-01-15T08:00:00Z", lambda p: p.time("a"), 1_800_000_000.0),
        ("2027-01-15T09:00:00 01:00", lambda p: p.time("a"), 1_800_000_000.0),
    ],
)
def test_a_good_value_is_read(value: str, take: Callable[[Parameters], Any], expected: Any) -> None:
    assert take(read(a=value)) == expected


@pytest.mark.parametrize(
    ("value", "take"),
    [
        ("", lambda p: p.text("a")),
        ("301", lambda p: p.number("a", 0, 0, 300)),
        ("nan", lambda p: p.number("a", 0, 0, 300)),
        ("-1", lambda p: p.number("a", 0, 0, 300)),
        ("x", lambda p: p.number("a", 0, 0, 300)),
        ("0", lambda p: p.integer("a", 1, 500)),
        ("9" * 5000, lambda p: p.integer("a", 1, 500)),
        ("²", lambda p: p.integer("a", 1, 500)),
        ("1.0", lambda p: p.integer("a", 1, 500)),
        ("yes", lambda p: p.flag("a")),
        ("maybe", lambda p: p.choice("a", ["on", "off"])),
        ("k", lambda p: p.pairs("a")),
        (":v", lambda p: p.pairs("a")),
        ("yesterday", lambda p: p.time("a")),
        ("2027-01-15T08:00:00", lambda p: p.time("a")),
    ],
)
def test_a_bad_value_is_refused_by_name(value: str, take: Callable[[Parameters], Any]) -> None:
    with pytest.raises(InvalidBody) as caught:
        take(read(a=value))

    assert [pointer for pointer, _ in caught.value.members] == ["?a"]


def test_a_parameter_given_twice_is_refused_where_one_is_meant() -> None:
    twice = Parameters({"a": [b"1", b"2"]}, ("a",))

    assert twice.texts("a") == ("1", "2")
    with pytest.raises(InvalidBody, match="once"):
        twice.text("a")


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(InvalidBody, match="UTF-8"):
        Parameters({"a": [b"\xff"]}, ("a",)).text("a")


def test_a_page_token_gives_back_what_it_was_made_of() -> None:
    assert read(page_token=page_token(("x", None), "last")).after(("x", None)) == "last"
    assert read().after(("x", None)) is None


@pytest.mark.parametrize("token", ["nonsense", "W10=", "bnVsbA==", "é", page_token(("y", None), "last")])
def test_a_page_token_is_refused_when_it_was_not_made_for_these_filters(token: str) -> None:
    with pytest.raises(InvalidBody, match="page_token"):
        read(page_token=token).after(("x", None))
