"""What the store is asked to write: one thing, for one who waits for it."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from task_daemon.core.ports import Meanwhile, NewTask, Tell
from task_daemon.engine.local.tables import Tables

log = logging.getLogger("task_daemon.engine")

Work = Callable[[Tables], Any]
Settle = Callable[[Any], None]
Answer = asyncio.Future[Any] | Future[Any]
Result = tuple[Any, BaseException | None]


class Operation:
    """`work` runs inside the transaction, `settle` right after the commit, in the order of commits; both on the writer thread
    (in a burst `settle` on the loop). `new`: it takes new work in, which a full disk refuses before anything else. `registers`:
    that is all it does, those of several operations can be stored at once, and who waits for it goes on in the turn of the loop
    that hears of the commit.
    `meanwhile`: to be called on the loop as soon as the writer needs no more of this machine than the disk and SQLite."""

    __slots__ = ("answer", "meanwhile", "new", "registers", "settle", "work")

    def __init__(
        self,
        work: Work,
        settle: Settle | None,
        answer: Answer,
        new: bool = False,
        registers: Sequence[NewTask] = (),
        meanwhile: Meanwhile | None = None,
    ) -> None:
        self.work = work
        self.settle = settle
        self.answer = answer
        self.new = new
        self.registers = registers
        self.meanwhile = meanwhile

    def get_ready(self) -> Tell | None:
        """Event loop: `meanwhile`, once."""
        meanwhile, self.meanwhile = self.meanwhile, None
        return None if meanwhile is None else meanwhile()


def answer_now(tell: Tell | None) -> None:
    try:
        if tell is not None:
            tell()
    except Exception:  # it is stored all the same
        log.exception("cannot answer a registration")
