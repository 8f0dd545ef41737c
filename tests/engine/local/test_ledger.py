"""How changes reach memory, beside what the contract of the engines shows."""

from task_daemon.clock import FakeClock
from task_daemon.core.ports import Added, Watched
from task_daemon.engine.local.ledger import Ledger
from tests.making import a_task


def test_a_new_task_counts_once_when_whoever_loads_has_read_it_before_it_was_settled(clock: FakeClock) -> None:
    ledger, task = Ledger(clock, Watched(), lambda _tasks: None), a_task()
    with ledger.lock:
        ledger.keep(task)

    ledger.settle_added(([Added(task)], []), {})

    assert ledger.live.unfinished() == 1
    assert ledger.live.live_of(task.owner.uid) == 1
    assert [list(tasks) for tasks, _, _ in ledger.news()] == [[task]], "those who follow are told"
