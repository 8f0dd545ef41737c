"""Writes every request and every object of the contract as one page, from the OpenAPI document that the daemon serves.

The site has it under *Reference*; `python docs/openapi_page.py` prints it.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from task_daemon import __version__
from task_daemon.api.app import ROUTES
from task_daemon.api.openapi import document

ABOUT = """\
# REST: every request and every object

Written from the OpenAPI 3.1 document that the daemon itself serves at `GET /v1/openapi.json`, which is held against a running
daemon by tests. [REST](rest-api.md) explains what it is for, with examples."""
Schema = Mapping[str, Any]


def markdown(contract: Schema | None = None) -> str:
    found = contract if contract is not None else document(ROUTES, __version__)
    return "\n".join(_page(found)) + "\n"


def _page(contract: Schema) -> Iterator[str]:
    operations = [(m.upper(), path, o) for path, methods in contract["paths"].items() for m, o in methods.items()]
    common = _common([answer["headers"] for _, _, o in operations for answer in o["responses"].values()])
    yield ABOUT
    yield "\nEvery answer has these headers:\n"
    yield from _table(("header", "meaning"), [(f"`{name}`", _cell(text)) for name, text in common.items()])
    yield "\n## Requests\n"
    yield from _table(
        ("request", "what it does", "needs"),
        [(f"[`{m} {path}`](#{_anchor(m, path)})", _cell(o["summary"]), o["x-needs"]) for m, path, o in operations],
    )
    for method, path, operation in operations:
        yield f"\n### `{method} {path}` {{ #{_anchor(method, path)} }}\n"
        yield from _operation(operation, common)
    yield "\n## Objects"
    for name, schema in contract["components"]["schemas"].items():
        yield f"\n### {name} {{ #{name.lower()} }}\n"
        yield from _object(schema)


def _common(headers: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The headers that every answer has, and what they mean."""
    everywhere = set(headers[0]).intersection(*headers)
    return {name: header["description"] for name, header in headers[0].items() if name in everywhere}


def _operation(operation: Schema, common: Mapping[str, str]) -> Iterator[str]:
    yield f"{operation['summary']}. {operation['description']}\n"
    parameters = [p for p in operation["parameters"] if p["in"] != "path"]
    if parameters:
        rows = [(f"`{p['name']}`", p["in"], kind(p["schema"]), _cell(p.get("description", ""))) for p in parameters]
        yield from _table(("parameter", "in", "type", "meaning"), rows)
        yield ""
    if "requestBody" in operation:
        yield f"Body: {_content(operation['requestBody'])}.\n"
    rows = []
    for status, answer in operation["responses"].items():
        codes = ", ".join(f"`{code}`" for code in answer.get("x-codes", ()))
        own = ", ".join(f"`{name}`" for name in answer["headers"] if name not in common)
        rows.append((status, codes or _cell(answer["description"]), _content(answer), own))
    yield from _table(("status", "meaning, or problem codes", "body", "headers"), rows)


def _content(holder: Schema) -> str:
    return "; or ".join(
        f"{kind(content['schema'])}{'' if type_.endswith('json') else f' as `{type_}`'}"
        for type_, content in holder.get("content", {}).items()
    )


def _object(schema: Schema) -> Iterator[str]:
    if schema.get("description"):
        yield f"{schema['description']}\n"
    if "properties" not in schema:
        yield f"{kind(schema)[:1].upper()}{kind(schema)[1:]}."
        return
    required = schema.get("required", ())
    if len(required) == len(schema["properties"]) > 1:
        yield "All members are always there.\n"
        required = ()
    rows = []
    for name, member in schema["properties"].items():
        rows.append((f"`{name}`", kind(member), "yes" if name in required else "", _cell(member.get("description", ""))))
    yield from _table(("member", "type", "required", "meaning"), rows)
    if "^x_" in schema.get("patternProperties", {}):
        yield "\nMembers whose name begins with `x_` are taken and not looked at; others are refused."


def kind(schema: Schema) -> str:
    """A type in words, its limits included."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(kind(each) for each in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {kind(schema.get('items', {}))}{_span(schema, 'Items', '')}"
    if schema.get("type") == "object":
        inner = schema.get("additionalProperties")
        return f"object of {kind(inner)}" if isinstance(inner, Mapping) and inner else "object"
    if schema.get("format") == "date-time":
        return "time"
    text = {None: "anything", "boolean": "true or false", "number": "number"}.get(schema.get("type"), schema.get("type", ""))
    limits = _span(schema, "Length", " characters") or _bounds(schema)
    matching = f" matching `{_cell(schema['pattern'])}`" if "pattern" in schema else ""
    return f"{text}{limits}{matching}"


def _span(schema: Schema, what: str, unit: str) -> str:
    least, most = schema.get(f"min{what}"), schema.get(f"max{what}")
    if most is None:
        return "" if not least else " (not empty)" if least == 1 else f" (at least {least}{unit})"
    return f" (at most {most}{unit})" if not least else f" ({least} to {most}{unit})"


def _bounds(schema: Schema) -> str:
    least, most = schema.get("minimum"), schema.get("maximum")
    if least is None and most is None:
        return ""
    return f" (at least {least})" if most is None else f" (at most {most})" if least is None else f" ({least} to {most})"


def _anchor(method: str, path: str) -> str:
    words = "".join(char if char.isalnum() else "-" for char in f"{method} {path}".lower())
    return "-".join(filter(None, words.split("-")))


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A column without any text is left out."""
    kept = [number for number in range(len(heads)) if any(row[number] for row in rows)]
    for row in (heads, ["---"] * len(heads), *rows):
        yield f"| {' | '.join(row[number] for number in kept)} |"


if __name__ == "__main__":
    sys.stdout.write(markdown())
