"""`--format`: columns (`uid,state,percent`) or a template (`{uid} is {state}`) instead of what a verb prints by itself."""

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import click

_PLACE = re.compile(r"\{([^{}]+)\}")
_ESCAPE = re.compile(r"\\(.)")
_ESCAPED = {"t": "\t", "n": "\n", "\\": "\\"}


@dataclass(frozen=True)
class Format:
    """`columns`: the members asked for, in order. `template` is None when they were named as columns.

    Members of members are named with a dot: `progress.percent`, `labels.rack`; those of `progress` also without it.
    """

    columns: tuple[str, ...]
    template: str | None = None

    @classmethod
    def read(cls, text: str) -> "Format":
        """Raises click.BadParameter."""
        if "{" in text:
            columns = tuple(_PLACE.findall(text))
            if not columns:
                raise click.BadParameter(f"{text!r} has no {{member}} in it", param_hint="--format")
            return cls(columns, _ESCAPE.sub(lambda found: _ESCAPED.get(found[1], found[0]), text))
        columns = tuple(name.strip() for name in text.split(","))
        if not all(columns):
            message = f"{text!r} is neither columns (uid,state,percent) nor a template ({{uid}} is {{state}})"
            raise click.BadParameter(message, param_hint="--format")
        return cls(columns)

    def values(self, row: Mapping[str, Any], known: Collection[str] = ()) -> list[Any]:
        """The members asked for. Raises click.BadParameter for one that neither `row` nor `known` has."""
        return [_find(row, name, known) for name in self.columns]

    def line(self, row: Mapping[str, Any], known: Collection[str] = ()) -> str:
        """The template filled in."""
        return _PLACE.sub(lambda found: shown(_find(row, found[1], known)), self.template or "")


def shown(value: Any) -> str:
    """A value for people: `-` for nothing, one line, nothing that moves the cursor."""
    if value is None:
        return "-"
    return one_line(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def one_line(text: str) -> str:
    """A newline or tab in a name would break the rows, an escape sequence the terminal."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def _find(row: Mapping[str, Any], name: str, known: Collection[str]) -> Any:
    head = name.partition(".")[0]
    if name in row or head in row:
        return _at(row, name)
    progress = row.get("progress")
    if isinstance(progress, Mapping) and name in progress:
        return progress[name]
    if head in known:
        return None
    accepted = ", ".join([*row, *(progress if isinstance(progress, Mapping) else ())])
    raise click.BadParameter(f"there is no member {name!r}; accepted: {accepted}", param_hint="--format")


def _at(value: Any, path: str) -> Any:
    """A name with dots in it, such as that of a label, is looked for as it is first."""
    if not isinstance(value, Mapping):
        return None
    if path in value:
        return value[path]
    head, dot, rest = path.partition(".")
    return _at(value.get(head), rest) if dot else None
