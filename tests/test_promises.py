"""Every fault of the old service and every invariant of the house has a test that names it."""

import ast
import re
from pathlib import Path

import pytest

PROMISES = [f"f{number}" for number in range(1, 16)] + [f"i{number}" for number in range(1, 13)]


def names_of_tests() -> set[str]:
    return {
        node.name
        for path in Path(__file__).parent.rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


NAMES = names_of_tests()


@pytest.mark.parametrize("promise", PROMISES)
def test_a_promise_has_a_test_that_names_it(promise: str) -> None:
    assert [name for name in NAMES if re.search(rf"_{promise}(_|$)", name)], f"no test is named test_{promise}_..."
