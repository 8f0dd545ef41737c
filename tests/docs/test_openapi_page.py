"""The page of the contract has all that is in its document: from the document, not through the writer of the page."""

import json
import re
from typing import Any

from docs.openapi_page import kind, markdown
from task_daemon.api.app import ROUTES
from task_daemon.api.openapi import document

COMMON = {"Task-Daemon-Version", "X-Request-Id"}
CONTRACT: dict[str, Any] = json.loads(json.dumps(document(ROUTES, "1")))


def sections() -> dict[str, str]:
    """What is under each heading of the third level, by the words in it."""
    parts = re.split(r"(?m)^### (.+?) \{ #[\w-]+ \}$", markdown(CONTRACT))
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_each_request_is_there_with_parameters_answers_codes_and_headers() -> None:
    found = sections()

    for path, methods in CONTRACT["paths"].items():
        for method, operation in methods.items():
            text = found.pop(f"`{method.upper()} {path}`")
            named = {p["name"] for p in operation["parameters"] if p["in"] != "path"}
            assert operation["summary"] in text
            assert {name for name in named if f"| `{name}` |" in text} == named
            for status, answer in operation["responses"].items():
                (row,) = re.findall(rf"(?m)^\| {status} \|.*$", text)
                assert all(f"`{code}`" in row for code in answer.get("x-codes", ()))
                assert all(
                    f"`{name}`" in row for name in answer["headers"] if name not in ("Task-Daemon-Version", "X-Request-Id")
                )
                for content in answer.get("content", {}).values():
                    assert kind(content["schema"]) in row
    assert set(found) == set(CONTRACT["components"]["schemas"])


def test_each_object_is_there_with_its_members() -> None:
    found = sections()

    for name, schema in CONTRACT["components"]["schemas"].items():
        for member in schema.get("properties", {}):
            assert f"| `{member}` |" in found[name], (name, member)
        assert all(f"`{value}`" in found[name] for value in schema.get("enum", ()))


def test_each_link_leads_to_a_heading() -> None:
    text = markdown(CONTRACT)
    anchors = re.findall(r"(?m)^### .* \{ #([\w-]+) \}$", text)

    assert len(anchors) == len(set(anchors))
    assert set(re.findall(r"\]\(#([\w-]+)\)", text)) <= set(anchors)


def test_types_are_told_with_their_limits() -> None:
    assert kind({"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^a|b$"}) == (
        "string (1 to 255 characters) matching `^a\\|b$`"
    )
    assert kind({"anyOf": [{"type": "number", "minimum": 0.1, "maximum": 3600}, {"type": "null"}]}) == (
        "number (0.1 to 3600) or null"
    )
    assert kind({"type": "array", "items": {"$ref": "#/components/schemas/Draft"}, "minItems": 1, "maxItems": 1000}) == (
        "list of [Draft](#draft) (1 to 1000)"
    )
    assert kind({"type": "object", "additionalProperties": {"type": "string", "maxLength": 9}}) == (
        "object of string (at most 9 characters)"
    )
    assert (kind({}), kind({"type": "integer", "minimum": 0})) == ("anything", "integer (at least 0)")
