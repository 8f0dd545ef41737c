"""A future that does not keep its waiter waiting for the next turn of the event loop."""

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Any, TypeVar

T = TypeVar("T")

Told = Callable[[Any], object]


class Prompt(asyncio.Future[T]):
    """The task that awaits it goes on within `set_result`: each turn of the loop asks the kernel what is new, and gives the
    interpreter lock away meanwhile.

    The result is set by a callback of the loop, or before anybody waits: no task can go on within another. All else is as with
    any future: whoever waits beside the first, an exception and being cancelled are told in the next turn.
    """

    _first: tuple[Told, Context | None] | None = None

    def add_done_callback(self, fn: Told, /, *, context: Context | None = None) -> None:
        if self._first is None and not self.done():
            self._first = fn, context
        else:
            super().add_done_callback(fn, context=context)

    def remove_done_callback(self, fn: Told, /) -> int:
        self._leave_for_next_turn()
        return super().remove_done_callback(fn)

    def set_result(self, result: T, /) -> None:
        first, self._first = self._first, None
        super().set_result(result)
        if first is not None:
            told, context = first
            if context is None:
                told(self)
            else:
                context.run(told, self)

    def set_exception(self, exception: type | BaseException, /) -> None:
        self._leave_for_next_turn()
        super().set_exception(exception)

    def cancel(self, msg: Any = None) -> bool:
        self._leave_for_next_turn()
        return super().cancel(msg)

    def _leave_for_next_turn(self) -> None:
        if self._first is not None:
            (told, context), self._first = self._first, None
            super().add_done_callback(told, context=context)
