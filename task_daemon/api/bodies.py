"""Request bodies: strict JSON, checked to the end. A wrong body is always a 400 that names what is wrong, never a 500 (F9)."""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from task_daemon.core.errors import InvalidBody, Refusal
from task_daemon.core.model import CallbackTarget, Draft, State
from task_daemon.tracking.admit import Registration, pointer_of

NESTING = 32  # levels of arrays and objects; deeper ones could be read, but not be shown from any stack depth
BATCH = 1000
NAMED = 100  # wrong members that are named; a body has room for ten thousands
EXTRA_MEMBERS = 16  # members that begin with x_
EXTRA_BYTES = 4096  # of JSON, all of them together

NESTED: Mapping[str, type[Struct]] = {"callback": CallbackTarget}
"""Members of a registration in which every wrong member is named, too."""

OLD_MEMBERS = ("id", "action", "zone", "region_task_id")

Body = TypeVar("Body", bound=Struct)


class Batch(Struct, frozen=True, forbid_unknown_fields=True):
    tasks: Annotated[list[Draft], Meta(min_length=1, max_length=BATCH)]


class Cancel(Struct, frozen=True, forbid_unknown_fields=True):
    stop_tracking: bool = False


class Resolve(Struct, frozen=True, forbid_unknown_fields=True):
    state: Literal["succeeded", "failed"]
    reason: str = ""

    @property
    def final(self) -> State:
        return State(self.state)


class Nothing(Struct, frozen=True, forbid_unknown_fields=True):
    """Of requests that say everything in their path."""


def registration(raw: bytes) -> Registration:
    """The body of `POST /v1/tasks`. Raises InvalidBody with every wrong member."""
    try:
        draft = _DRAFT.decode(raw)
    except (ValueError, RecursionError):
        return _registration(members_of(raw), "")
    if draft.params is not None:  # nothing else nests
        _check_depth(raw)
    if not _all_strings_are_in(raw, draft):
        _check_names(raw)
    return Registration(draft)


def old_registration(raw: bytes) -> Registration:
    """The body of `POST /`. The old service looked at four members and at nothing else, so others are left unread."""
    data = members_of(raw)
    return _registration({name: data[name] for name in OLD_MEMBERS if name in data}, "")


def batch(raw: bytes) -> list[Registration]:
    """The body of `POST /v1/tasks:batch`. Raises InvalidBody, also with `extra["index"]`."""
    try:
        read = _BATCH.decode(raw)
    except (ValueError, RecursionError):
        return _batch(members_of(raw))
    if b'"params"' in raw or b"\\" in raw:  # or its name is written with escapes; nothing else nests
        _check_depth(raw)
    if not _all_strings_are_in(raw, read):
        _check_names(raw)
    return [Registration(draft) for draft in read.tasks]


def _batch(data: dict[str, Any]) -> list[Registration]:
    wrong = [(f"/{_escaped(name)}", "unknown member; this body has only: tasks") for name in data if name != "tasks"]
    tasks = data.get("tasks")
    if not isinstance(tasks, list):
        wrong.append(("/tasks", "must be an array of registrations"))
    elif not 1 <= len(tasks) <= BATCH:
        wrong.append(("/tasks", f"must have 1 to {BATCH} entries, not {len(tasks)}"))
    if wrong or not isinstance(tasks, list):
        raise _invalid(wrong)
    return [_entry(index, entry) for index, entry in enumerate(tasks)]


def small(raw: bytes, kind: type[Body]) -> Body:
    """A body of few members; an empty one stands for `{}`."""
    data = members_of(raw or b"{}")
    wrong = _wrong_members(data, kind, "")
    if wrong:
        raise _invalid(wrong)
    return msgspec.convert(data, kind)


def of_a_batch(refusal: Refusal, index: int) -> Refusal:
    """The refusal of a single registration as that of entry `index` of a batch, unless it says so already."""
    if "index" in refusal.extra:
        return refusal
    members = [(f"/tasks/{index}{pointer}", text) for pointer, text in refusal.members]
    extra = {**refusal.extra, "index": index}
    return type(refusal)(f"task {index} of the batch: {refusal.detail}", members, refusal.retry_after, extra)


def members_of(raw: bytes) -> dict[str, Any]:
    """The members of a JSON object. Raises InvalidBody for anything else, with a sentence that says what it is."""
    try:
        data = msgspec.json.decode(raw)
        _check_depth(raw)
        _check_names(raw)
    except RecursionError:
        raise _too_deep() from None
    except UnicodeDecodeError:
        raise _unreadable("it is not UTF-8") from None
    except msgspec.ValidationError as error:
        raise _unreadable(f"a number in it is out of range ({pointer_of(str(error))[0]})") from None
    except ValueError as error:
        raise _unreadable("it is empty" if not raw.strip() else f"it is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise _unreadable("it is no JSON object")
    return data


def _registration(data: dict[str, Any], root: str) -> Registration:
    extra = {name: data.pop(name) for name in list(data) if name.startswith("x_")}
    wrong = _wrong_members(data, Draft, root) + _wrong_extra(extra, root)
    if wrong:
        raise _invalid(wrong)
    return Registration(msgspec.convert(data, Draft), extra or None)


def _entry(index: int, data: Any) -> Registration:
    try:
        return Registration(msgspec.convert(data, Draft))
    except msgspec.ValidationError:
        pass
    try:
        if not isinstance(data, dict):
            raise _invalid([("", "must be an object")])
        return _registration(data, "")
    except InvalidBody as refusal:
        raise of_a_batch(refusal, index) from None


def _wrong_members(data: dict[str, Any], kind: type[Struct], root: str) -> list[tuple[str, str]]:
    """Pointer and sentence for every member that is missing, unknown or of the wrong type."""
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    known = ", ".join(fields) or "none"
    own = " (names of your own begin with x_)" if kind is Draft else ""
    wrong = [(f"{root}/{_escaped(name)}", f"unknown member; known: {known}{own}") for name in data if name not in fields]
    for name, field in fields.items():
        pointer = f"{root}/{name}"
        if name not in data:
            if field.required:
                wrong.append((pointer, "is required"))
        elif name in NESTED and isinstance(data[name], dict):
            wrong += _wrong_members(data[name], NESTED[name], pointer)
        else:
            try:
                msgspec.convert(data[name], field.type)
            except msgspec.ValidationError as error:
                sentence, where = pointer_of(str(error), pointer)
                wrong.append((where, sentence))
    return wrong


def _wrong_extra(extra: dict[str, Any], root: str) -> list[tuple[str, str]]:
    if len(extra) > EXTRA_MEMBERS:
        sentence = f"at most {EXTRA_MEMBERS} members may begin with x_, not {len(extra)}"
    elif extra and len(msgspec.json.encode(extra)) > EXTRA_BYTES:
        sentence = f"the members that begin with x_ may take {EXTRA_BYTES} bytes together"
    else:
        return []
    return [(f"{root}/{_escaped(next(iter(extra)))}", sentence)]


def _check_depth(raw: bytes) -> None:
    """msgspec lets a text nest up to the end of the stack."""
    if raw.count(b"[") + raw.count(b"{") > NESTING and _nested_too_deep(raw):
        raise _too_deep()


def _check_names(raw: bytes) -> None:
    """msgspec lets a name pass that is there twice in one object: whose value would win?"""
    try:
        _NAMES.decode(raw.decode())
    except _Twice as twice:
        text = f"the name {twice.args[0]!r} is there twice in one object"
        raise InvalidBody(f"cannot read the body: {text}") from None


def _all_strings_are_in(raw: bytes, read: Draft | Batch) -> bool:
    """Whether every string of a text is in what was read from it. If not, or if that is uncertain, `_check_names` has to look.

    Of a name that is there twice in one object, what was read has the last value only: at least one string fewer, the name. So
    it is enough to count the quotes of the text and of what was read, written again. Without escapes each string has two of
    them, and what is written besides (null for what was left out, the events a callback asks for by default) is not counted;
    where a text spells that out, it has more quotes than are found again, and is looked at the long way.
    """
    if b"\\" in raw:
        return False
    again = _encode(read)
    besides = 2 * again.count(b'":null') + 4 * again.count(b'"events":["finished"]')
    return raw.count(b'"') == again.count(b'"') - besides


def _nested_too_deep(raw: bytes) -> bool:
    """Whether a text that is known to be JSON nests deeper than about NESTING levels (surely if twice as deep).

    Takes away strings, then one level of brackets after the other: no Python code for each byte of 4 MiB.
    """
    unescaped = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    brackets = b"".join(unescaped.split(b'"')[::2]).translate(None, _ALL_BUT_BRACKETS)
    for _ in range(NESTING):
        if not brackets:
            return False
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
    return bool(brackets)


class _Twice(Exception):
    pass


def _each_once(pairs: Sequence[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) != len(pairs):
        names = [name for name, _ in pairs]
        raise _Twice(next(name for name in names if names.count(name) > 1))


def _invalid(wrong: Sequence[tuple[str, str]]) -> InvalidBody:
    text = "; ".join(f"{pointer or '/'}: {sentence}" for pointer, sentence in wrong[:5])
    more = f"; and {len(wrong) - 5} more" if len(wrong) > 5 else ""
    return InvalidBody(f"cannot read the body: {text}{more}", members=wrong[:NAMED])


def _unreadable(cause: str) -> InvalidBody:
    return InvalidBody(f"cannot read the body: {cause}; a JSON object is expected")


def _too_deep() -> InvalidBody:
    return _unreadable(f"it is nested deeper than {NESTING} levels")


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


_encode = msgspec.json.Encoder().encode
_DRAFT, _BATCH = msgspec.json.Decoder(Draft), msgspec.json.Decoder(Batch)
_ALL_BUT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_NAMES = json.JSONDecoder(object_pairs_hook=_each_once)
