"""Query parameters: read strictly, and named when they are wrong. Page tokens: opaque, bound to what they were given for."""

import base64
import binascii
import hashlib
import math
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

import msgspec

from task_daemon.core.errors import InvalidBody


class Parameters:
    """The query of one request. Every method raises InvalidBody naming the parameter (pointer `?name`)."""

    def __init__(self, given: Mapping[str, Sequence[bytes]], known: Collection[str]) -> None:
        self._given = given
        for name in given:
            if name not in known:
                accepted = ", ".join(sorted(known)) or "none"
                refuse(name, f"unknown parameter; this path takes: {accepted}")

    def texts(self, name: str) -> tuple[str, ...]:
        try:
            found = tuple(value.decode() for value in self._given.get(name, ()))
        except UnicodeDecodeError:
            refuse(name, "must be UTF-8, percent-encoded")
        if any(not value for value in found):
            refuse(name, "must not be empty; leave it out instead")
        return found

    def text(self, name: str) -> str | None:
        if name not in self._given:
            return None
        found = self.texts(name)
        if len(found) > 1:
            refuse(name, "must be given once")
        return found[0]

    def number(self, name: str, default: float, low: float, high: float) -> float:
        text = self.text(name)
        if text is None:
            return default
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            refuse(name, f"must be a number from {low:g} to {high:g}, not {text!r}")
        return value

    def integer(self, name: str, low: int, high: int) -> int | None:
        text = self.text(name)
        if text is None:
            return None
        plain = text.isascii() and text.isdigit() and len(text) < 20
        if not plain or not low <= int(text) <= high:
            refuse(name, f"must be a whole number from {low} to {high}, not {text!r}")
        return int(text)

    def flag(self, name: str) -> bool | None:
        text = self.text(name)
        if text not in (None, "true", "false"):
            refuse(name, f"must be true or false, not {text!r}")
        return None if text is None else text == "true"

    def choices(self, name: str, allowed: Collection[str]) -> tuple[str, ...]:
        found = self.texts(name)
        for value in found:
            if value not in allowed:
                refuse(name, f"must be one of {', '.join(allowed)}, not {value!r}")
        return found

    def choice(self, name: str, allowed: Collection[str]) -> str | None:
        self.choices(name, allowed)
        return self.text(name)

    def time(self, name: str) -> float | None:
        """Wall time in seconds, from RFC 3339."""
        text = self.text(name)
        if text is None:
            return None
        try:
            moment = datetime.fromisoformat(text.replace(" ", "+"))  # a plus sign that nobody percent-encoded
        except ValueError:
            moment = None
        if moment is None or moment.tzinfo is None:
            refuse(name, f"must be a time like 2030-01-31T12:00:00Z, not {text!r}")
        return moment.timestamp()

    def pairs(self, name: str) -> tuple[tuple[str, str], ...]:
        found = [value.partition(":") for value in self.texts(name)]
        if any(not colon or not key for key, colon, _ in found):
            refuse(name, "must look like name:value")
        return tuple((key, value) for key, _, value in found)

    def after(self, bound: Any) -> str | None:
        """What the page before ended with; `bound` is what the token must have been made for."""
        token = self.text("page_token")
        if token is None:
            return None
        try:
            digest, last = msgspec.json.decode(base64.b64decode(token, altchars=b"-_", validate=True), type=tuple[str, str])
        except (binascii.Error, ValueError):
            refuse("page_token", "not a token of this daemon; begin again without one")
        if digest != _digest(bound):
            refuse("page_token", "made for other filters; keep them the same, or begin again without a token")
        return last


def page_token(bound: Any, last: str) -> str:
    """A token for the page after the entry `last`, good for the same `bound` only."""
    return base64.urlsafe_b64encode(msgspec.json.encode((_digest(bound), last))).decode()


def _digest(bound: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(bound)).hexdigest()[:16]


def refuse(name: str, sentence: str) -> NoReturn:
    raise InvalidBody(f"cannot use query parameter {name}: {sentence}", members=[(f"?{name}", sentence)])
