import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from task_client import compact
from task_client.compact import text_of

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)


@pytest.fixture(params=["with the encoder of this Python", "without one"])
def _either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "without one":
        monkeypatch.setattr(compact, "_pieces", None)


@settings(max_examples=50)
@given(st.dictionaries(st.text(), values))
def test_text_is_compact_json(value: dict[str, Any]) -> None:
    assert text_of(value) == json.dumps(value, ensure_ascii=False, separators=(",", ":"))


@pytest.mark.usefixtures("_either")
def test_text_keeps_letters_as_they_are() -> None:
    assert text_of({"name": "Bäckup", "n": [1, 2.5, None, True]}) == '{"name":"Bäckup","n":[1,2.5,null,true]}'


@pytest.mark.usefixtures("_either")
@pytest.mark.parametrize(
    ("value", "error"), [(math.nan, ValueError), (-math.inf, ValueError), ({1}, TypeError), (b"", TypeError)]
)
def test_what_is_no_json_is_refused(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        text_of({"params": {"x": value}})


@pytest.mark.usefixtures("_either")
def test_what_contains_itself_is_refused() -> None:
    value: dict[str, Any] = {}
    value["params"] = [value]

    with pytest.raises(ValueError, match="Circular"):
        text_of(value)
    assert text_of({"a": {}}) == '{"a":{}}'


def test_the_encoder_of_this_python_is_used() -> None:
    assert compact._pieces is not None
