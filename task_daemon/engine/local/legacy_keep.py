"""Takes the `data.keep` of the old service in, once (I11): what it was watching when it was stopped is watched on.

Every entry gets an idempotency key made from the file's content, so a crash half-way imports nothing twice, even if a task
has ended meanwhile. The file is renamed only when its tasks are on disk (the old service deleted it before, F3).
"""

import asyncio
import hashlib
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from task_daemon.core import crash
from task_daemon.core.errors import Refusal
from task_daemon.core.model import Mode, Owner, Task
from task_daemon.core.ports import Engine, NewTask
from task_daemon.core.uids import new_uid
from task_daemon.engine.local.salvage import sync

log = logging.getLogger("task_daemon.engine")

OLD_TIMEOUT = 43_200  # seconds the old service polled
OLD_INTERVAL = 10  # seconds for each count
AT_ONCE = 500  # tasks that share commits
AT_LEAST = 60.0  # seconds an entry is still watched, however often it was polled before

_Name = Annotated[str, Meta(min_length=1, max_length=255)]


class Entry(Struct, frozen=True):
    """One task as the old service wrote it down. Members it did not know are ignored."""

    id: _Name
    action: _Name
    zone: _Name
    count: Annotated[int, Meta(ge=0)] = 0
    size_in_bytes: Annotated[int, Meta(ge=0)] = 0
    size_reported: bool = False
    region_task_id: _Name | int | None = None


async def import_keep(engine: Engine, path: Path, now: float, owner: Owner) -> int:
    """Take the file's entries in as tracked tasks of `owner`; answers how many were stored. 0 if there is no file.

    A torn or senseless file is kept as `<name>.damaged-<time>`, as is one with bad entries (the good ones are taken in).
    Raises what stops the engine from storing anything (StoreFull, OutcomeUnknown); the file then stays for the next start.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return 0
    except OSError as error:
        log.error("cannot read %s: %s; the old service's tasks are not taken in", path, error)
        return 0
    try:
        entries = msgspec.json.decode(content, type=list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        aside = _rename(path, f"damaged-{_stamp(now)}")
        log.error("cannot take in %s: %s; a JSON list of tasks was expected; kept as %s", path, error, aside)
        return 0
    print_of_file = hashlib.sha256(content).hexdigest()
    new: list[NewTask] = []
    bad = 0
    for index, raw in enumerate(entries):
        item = _new_task(raw, index, print_of_file, now, owner)
        if item is None:
            bad += 1
        else:
            new.append(item)
    crash.reach("keep.before-commit")
    stored, refused = await _add(engine, new)
    crash.reach("keep.after-commit")
    aside = _rename(path, f"damaged-{_stamp(now)}" if bad or refused else "imported")
    log.info("took in %d of %d tasks of %s; kept as %s", stored, len(entries), path, aside)
    return stored


def _new_task(raw: msgspec.Raw, index: int, print_of_file: str, now: float, owner: Owner) -> NewTask | None:
    try:
        entry = msgspec.json.decode(raw, type=Entry)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        log.error("cannot take in entry %d of the old service's tasks (%s): %s", index, _named(raw), error)
        return None
    left = max(AT_LEAST, float(OLD_TIMEOUT - entry.count * OLD_INTERVAL))
    task = Task(
        uid=new_uid(now),
        id=entry.id,
        action=entry.action,
        zone=entry.zone,
        mode=Mode.TRACK,
        owner=owner,
        created_at=now,
        timeout=left,
        deadline_at=now + left,
        region_task_id=entry.region_task_id,
        size=entry.size_in_bytes or None,
        size_told=entry.size_reported and entry.size_in_bytes > 0,
    )
    return NewTask(task, key=f"data.keep-{print_of_file[:32]}-{index}", fingerprint=print_of_file)


async def _add(engine: Engine, new: list[NewTask]) -> tuple[int, int]:
    """How many were stored now, and how many were refused. Each is added by itself, as one refusal would refuse all."""
    stored = refused = 0
    for start in range(0, len(new), AT_ONCE):
        some = new[start : start + AT_ONCE]
        answers = await asyncio.gather(*(engine.add([item]) for item in some), return_exceptions=True)
        for item, answer in zip(some, answers, strict=True):
            if not isinstance(answer, BaseException):
                stored += not answer[0].replayed
            elif isinstance(answer, Refusal) and answer.retry_after is None:
                refused += 1
                log.error("cannot take in %s of the old service's tasks: %s", item.task.id, answer)
            else:
                raise answer
    return stored, refused


def _named(raw: msgspec.Raw) -> str:
    """Enough of a bad entry to find it in the file."""
    try:
        entry: Any = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "unreadable"
    return f"id {entry['id']!r}" if isinstance(entry, dict) and "id" in entry else "no id"


def _rename(path: Path, ending: str) -> Path:
    """Rename the file and make that last."""
    aside = path.with_name(f"{path.name}.{ending}")
    sync(path)
    crash.reach("keep.before-rename")
    path.rename(aside)
    crash.reach("keep.after-rename")
    sync(path.parent)
    return aside


def _stamp(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
