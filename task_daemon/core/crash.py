"""Moments at which a test may end the process: each boundary between an effect outside and its record on disk.

`reach(name)` does nothing until `install` was called, which only `main` does, when the environment asks for it
(`TASK_DAEMON_CRASH_AT=name` or `name:3` for the third time): a test aid, without effect otherwise.
"""

from collections.abc import Callable

VARIABLE = "TASK_DAEMON_CRASH_AT"

POINTS = (
    "register.before",
    "commit.before",
    "commit.after",
    "burst.before",
    "burst.after",
    "prepare.before-record",
    "prepare.after-record",
    "start.before",
    "start.after",
    "end.before-record",
    "forget.before",
    "forget.after",
    "callback.before",
    "callback.after",
    "migrate.inside",
    "migrate.between",
    "checkpoint.between",
    "salvage.copied",
    "salvage.complete",
    "salvage.moving",
    "salvage.moved",
    "salvage.replaced",
    "keep.before-commit",
    "keep.after-commit",
    "keep.before-rename",
    "keep.after-rename",
)

_hook: Callable[[str], None] | None = None


def reach(name: str) -> None:
    """This moment, one of `POINTS`, is now. Any thread."""
    if _hook is not None:
        _hook(name)


def install(wanted: str, die: Callable[[], None]) -> None:
    """Call `die` when the point `wanted` is reached. Raises ValueError for what is no point."""
    name, _, count = wanted.partition(":")
    if name not in POINTS or not (count or "1").isdigit() or int(count or 1) < 1:
        raise ValueError(f"cannot crash at {wanted!r}: accepted is NAME or NAME:COUNT, and the names are {', '.join(POINTS)}")
    left = int(count or 1)

    def hook(reached: str) -> None:
        nonlocal left
        left -= reached == name
        if reached == name and left <= 0:
            die()

    global _hook
    _hook = hook
