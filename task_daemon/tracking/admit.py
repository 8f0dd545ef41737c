"""From a registration to a task: every check that needs to know zones, actions and callbacks, before anything is stored."""

import hashlib
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import Struct

from task_daemon.core.errors import InvalidBody, Refusal, UnknownAction, UnknownZone
from task_daemon.core.model import CALLBACK_EVENTS, CallbackTarget, Draft, Mode, Owner, Task
from task_daemon.core.ports import Action, Clock, Zone
from task_daemon.core.uids import new_uid

UNKNOWN, MISSING = "Object contains unknown field `", "Object missing required field `"  # as msgspec says it
TARGETS = 1024  # receivers whose check is remembered: a registrant names the same few again and again
DEFAULT_TIMEOUT = 43_200.0  # seconds: the 12 hours of the old service


class Registration(Struct, frozen=True):
    """A draft, and the members that start with x_, kept and given back as they are."""

    draft: Draft
    extra: dict[str, Any] | None = None

    def fingerprint(self) -> str:
        """Same for the same body, whatever its white space and the order of its members."""
        return hashlib.sha256(msgspec.json.encode((self.draft, self.extra), order="sorted")).hexdigest()


class Admission:
    """Turns registrations into tasks. `lane` checks a callback URL (ValueError says what is accepted), `keys` are the names
    of the configured callback keys, `timeout` is a task's default life in seconds."""

    def __init__(
        self,
        zones: Mapping[str, Zone],
        lane: Callable[[str], str],
        keys: Collection[str],
        clock: Clock,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        self._zones = zones
        self._lane = lane
        self._keys = frozenset(keys)
        self._clock = clock
        self._timeout = timeout
        self._look_at = lru_cache(maxsize=TARGETS)(self._check_callback)  # what is refused is not remembered

    def task(self, registration: Registration, owner: Owner, now: float | None = None) -> Task:
        """The task to be stored, registered at `now` (wall time; None: now). Raises InvalidBody, UnknownZone, UnknownAction;
        every message says what is accepted."""
        draft = registration.draft
        zone = self._zones.get(draft.zone)
        if zone is None:
            known = ", ".join(sorted(self._zones)) or "none at all"
            detail = f"cannot register {draft.id!r}: unknown zone {draft.zone!r}; configured zones: {known}"
            raise UnknownZone(detail, members=[("/zone", f"one of: {known}")])
        action = zone.backend.actions.get(draft.action)
        if action is None:
            raise self._unknown_action(draft, zone)
        if draft.params is not None:
            self._check_params(draft, draft.params, action)
        if draft.callback is not None:
            self._look_at(draft.callback)
        if now is None:
            now = self._clock.now()
        timeout = draft.timeout if draft.timeout is not None else self._timeout
        task = Task(
            uid=new_uid(now),
            id=draft.id,
            action=action.name,
            zone=zone.name,
            mode=Mode.TRACK if draft.params is None else Mode.RUN,
            owner=owner,
            created_at=now,
            timeout=timeout,
            deadline_at=now + timeout,
            job=draft.job,
            params=draft.params,
            region_task_id=draft.region_task_id,
            callback=draft.callback,
            poll_interval=draft.poll_interval,
            labels=draft.labels or None,
            extra=registration.extra or None,
        )
        try:
            handle = zone.backend.admit(task)
        except Exception:
            raise
        except BaseException as error:  # it ends this request, and never the daemon
            raise RuntimeError(f"the backend of zone {zone.name} raised {type(error).__name__}") from error
        return task if handle is None else msgspec.structs.replace(task, handle=handle)

    def _unknown_action(self, draft: Draft, zone: Zone) -> Refusal:
        known = ", ".join(sorted(zone.backend.actions))
        elsewhere = sorted(z.name for z in self._zones.values() if draft.action in z.backend.actions)
        hint = f" (zones that know it: {', '.join(elsewhere)})" if elsewhere else ""
        detail = f"cannot register {draft.id!r}: zone {zone.name!r} knows no action {draft.action!r}{hint}; it knows: {known}"
        return UnknownAction(detail, members=[("/action", f"one of: {known}")])

    def _check_params(self, draft: Draft, params: dict[str, Any], action: Action) -> None:
        if draft.job is not None:
            text = "only for work that you started yourself: leave out either job or params"
            raise InvalidBody(f"cannot register {draft.id!r}: job is {text}", members=[("/job", text)])
        try:
            msgspec.convert(params, action.params, strict=True)
        except msgspec.ValidationError as error:
            sentence, pointer = pointer_of(str(error), "/params")
            fields = ", ".join(field.encode_name for field in msgspec.structs.fields(action.params))
            detail = f"cannot register {draft.id!r}: {pointer}: {sentence}; params of {action.name} are: {fields}"
            raise InvalidBody(detail, members=[(pointer, sentence)]) from None

    def _check_callback(self, callback: CallbackTarget) -> None:
        wrong: list[tuple[str, str]] = []
        try:
            self._lane(callback.url)
        except ValueError as error:
            wrong.append(("/callback/url", str(error)))
        for index, event in enumerate(callback.events):
            if event not in CALLBACK_EVENTS:
                wrong.append((f"/callback/events/{index}", f"{event!r} is not one of: {', '.join(CALLBACK_EVENTS)}"))
        if not callback.events:
            wrong.append(("/callback/events", f"at least one of: {', '.join(CALLBACK_EVENTS)}"))
        if callback.secret is not None and callback.secret not in self._keys:
            known = ", ".join(sorted(self._keys)) or "none is configured"
            wrong.append(("/callback/secret", f"no key of that name; configured keys: {known}"))
        if wrong:
            text = "; ".join(f"{pointer}: {sentence}" for pointer, sentence in wrong)
            raise InvalidBody(f"cannot use the callback: {text}", members=wrong)


def pointer_of(message: str, root: str = "") -> tuple[str, str]:
    """msgspec's "Expected `str`, got `int` - at `$.a[0].b`" as a sentence and a JSON pointer below `root`.

    Keys are said to be "at `key` in `$.a`", values of a dictionary at `$.a[...]` (measured with msgspec 0.22).
    """
    sentence, found, where = message.rpartition(" - at `")
    if not found or not where.endswith("`") or (UNKNOWN in sentence and not sentence.endswith("`")):
        sentence, where = message, ""  # no place, but a member whose name looks like one
    path = where.removeprefix("key` in `").removeprefix("$").removesuffix("`")
    for old, new in (("[...]", "/*"), ("[", "/"), ("]", ""), (".", "/")):
        path = path.replace(old, new)
    for words, instead in ((UNKNOWN, "unknown member"), (MISSING, "is required")):
        if sentence.startswith(words):
            name = sentence.removeprefix(words).removesuffix("`")
            return instead, f"{root}{path}/{name.replace('~', '~0').replace('/', '~1')}"
    return sentence[:1].lower() + sentence[1:], root + path
