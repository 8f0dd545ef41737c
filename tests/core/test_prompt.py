"""Prompt: who awaits it goes on within `set_result`."""

import asyncio
from contextvars import ContextVar

from task_daemon.core.prompt import Prompt

seen_in: ContextVar[str] = ContextVar("seen_in", default="the loop")


class Waiting:
    """A task that awaits `answer` and says what it got and in whose context."""

    def __init__(self, answer: "Prompt[str]") -> None:
        self.said: list[str] = []
        self.answer = answer
        self.task = asyncio.create_task(self._wait())

    async def _wait(self) -> None:
        seen_in.set("the task")
        try:
            said = await self.answer
        except (asyncio.CancelledError, ValueError) as error:
            said = type(error).__name__
        self.said.append(f"{said} in {seen_in.get()}")


async def waiting() -> Waiting:
    waiting = Waiting(Prompt())
    await asyncio.sleep(0)
    return waiting


async def by_the_loop(call: "asyncio.Future[str]", text: str, waiting: Waiting) -> list[str]:
    """What the waiter had said when `set_result`, called by the loop, had returned."""
    said: list[str] = []

    def set_it() -> None:
        call.set_result(text)
        said.extend(waiting.said)

    asyncio.get_running_loop().call_soon(set_it)
    await asyncio.sleep(0)
    return said


async def test_the_waiter_goes_on_within_set_result_in_its_own_context() -> None:
    one = await waiting()
    assert await by_the_loop(one.answer, "done", one) == ["done in the task"]
    assert one.task.done()


async def test_a_result_that_is_there_already_is_taken_at_once() -> None:
    answer: Prompt[str] = Prompt()
    answer.set_result("early")
    assert await answer == "early"


async def test_an_exception_is_told_in_the_next_turn() -> None:
    one = await waiting()
    one.answer.set_exception(ValueError())
    assert one.said == []
    await asyncio.sleep(0)
    assert one.said == ["ValueError in the task"]


async def test_a_waiter_can_be_cancelled_by_another_task() -> None:
    one = await waiting()
    one.task.cancel()
    assert one.said == []
    await asyncio.sleep(0)
    assert (one.said, one.answer.cancelled()) == (["CancelledError in the task"], True)


async def test_whoever_waits_beside_the_first_is_told_in_the_next_turn() -> None:
    one = await waiting()
    other = Waiting(one.answer)
    await asyncio.sleep(0)
    await by_the_loop(one.answer, "done", one)
    assert (one.said, other.said) == (["done in the task"], [])
    await asyncio.gather(one.task, other.task)
    assert other.said == ["done in the task"]


async def test_a_callback_can_be_taken_back() -> None:
    answer: Prompt[str] = Prompt()
    told: list[str] = []

    def tell(done: "Prompt[str]") -> None:
        told.append(done.result())

    answer.add_done_callback(tell)
    assert (answer.remove_done_callback(print), answer.remove_done_callback(tell)) == (0, 1)
    answer.set_result("done")
    await asyncio.sleep(0)
    assert told == []
