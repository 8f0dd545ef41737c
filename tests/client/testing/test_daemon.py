"""`task_client.testing` as a registrant uses it: hours pass in milliseconds, on a real daemon."""

import subprocess
import sys
import threading
from typing import Any

import pytest

from task_client.errors import RequestRefused
from task_client.testing import TaskDaemon


def test_registered_work_ends_after_three_hours_and_the_receiver_that_fails_twice_is_told(task_daemon: TaskDaemon) -> None:
    task_daemon.scenario(id="disk-*", finish_after=3 * 3600)
    task_daemon.receiver.answer(500, 500)
    task = task_daemon.client.register("disk-7", "backup", "zone1", callback=task_daemon.receiver.url)

    task_daemon.advance(hours=2, minutes=59)
    assert task_daemon.client.get(task.uid).progress.percent == pytest.approx(99.44, abs=0.01)
    assert task_daemon.receiver.calls == []
    task_daemon.advance(minutes=2)

    calls = task_daemon.receiver.calls
    assert [call.answered for call in calls] == [500, 500, 200]
    assert {(call.id, call.type, call.task.uid) for call in calls} == {(calls[0].id, "task.succeeded", task.uid)}
    assert [call.headers["task-daemon-attempt"] for call in calls] == ["1", "2", "3"]
    assert len(task_daemon.receiver.accepted) == 1


def test_retries_come_at_their_time(task_daemon: TaskDaemon) -> None:
    """The schedule's first waits are 0, 1 and 2 s, give or take a fifth."""
    task_daemon.receiver.answer(500, 500)
    task_daemon.scenario(finish_after=60)
    task = task_daemon.client.register("disk-7", "backup", "zone1", callback=task_daemon.receiver.url)

    task_daemon.advance(minutes=1)
    task_daemon.advance(seconds=10)
    (callback,) = task_daemon.client.callbacks(task.uid)
    times = [each["at"][14:] for each in callback.tries]

    assert callback.state == "delivered"
    assert times[0].startswith("01:00.")
    assert "01:00.800" <= times[1] <= "01:01.200"
    assert "01:02.400" <= times[2] <= "01:03.600"


@pytest.mark.parametrize(
    ("script", "end", "message"),
    [
        ({"fail_at": 50, "message": "No space left"}, "failed", "No space left"),
        ({"vanish_at": 70}, "lost", ""),
        ({"stall_at": 40}, "failed", ""),
    ],
)
def test_work_fails_vanishes_or_stalls_as_its_scenario_says(
    task_daemon: TaskDaemon, script: dict[str, Any], end: str, message: str
) -> None:
    task_daemon.scenario(finish_after=600, **script)
    task = task_daemon.client.register("disk-7", "backup", "zone2", timeout=7200, callback=task_daemon.receiver.url)

    task_daemon.advance(hours=2, minutes=5)

    (call,) = task_daemon.receiver.accepted
    assert (call.type, call.task.state, call.task.uid) == (f"task.{end}", end, task.uid)
    assert call.task.error is not None
    assert message in call.task.error.message


def test_an_end_is_seen_at_its_second_whatever_the_interval(task_daemon: TaskDaemon) -> None:
    task_daemon.scenario(finish_after=100)
    task = task_daemon.client.register("disk-7", "backup", "zone1")

    task_daemon.advance(99)
    assert not task_daemon.client.get(task.uid).done
    task_daemon.advance(1)
    ended = task_daemon.client.get(task.uid)

    assert (ended.state, ended.finished_at) == ("succeeded", task_daemon.now)


def test_somebody_who_waits_is_woken(task_daemon: TaskDaemon) -> None:
    task = task_daemon.client.register("disk-7", "backup", "zone1")
    ended: list[str] = []
    waiter = threading.Thread(target=lambda: ended.append(task_daemon.client.wait(task.uid).state))
    waiter.start()

    task_daemon.advance(10)
    waiter.join(20)

    assert ended == ["succeeded"]


def test_a_scenario_may_name_an_action_of_its_own(task_daemon: TaskDaemon) -> None:
    with pytest.raises(RequestRefused, match="unknown-action"):
        task_daemon.client.register("db", "vacuum", "zone1")
    task_daemon.scenario(action="vacuum", finish_after=5)
    task = task_daemon.client.register("db", "vacuum", "zone1")

    task_daemon.advance(5)

    assert task_daemon.client.get(task.uid).succeeded


def test_mistakes_are_named(task_daemon: TaskDaemon) -> None:
    with pytest.raises(ValueError, match=r"finish_afer.*its members are .*finish_after"):
        task_daemon.scenario(finish_afer=3)
    with pytest.raises(ValueError, match=r"fail_at"):
        task_daemon.scenario(fail_at=150)
    with pytest.raises(ValueError, match="does not go back"):
        task_daemon.advance(-1)


class TestOptions:
    @pytest.fixture
    def task_daemon_options(self) -> dict[str, Any]:
        return {"zones": ["vm1"], "configuration": "[callbacks]\nschedule = [0, 60]\n"}

    def test_zones_and_configuration_are_chosen_by_a_fixture(self, task_daemon: TaskDaemon) -> None:
        assert [zone["zone"] for zone in task_daemon.client.zones()] == ["vm1"]
        task_daemon.receiver.answer(500, 500)
        task_daemon.client.register("d", "backup", "vm1", callback=task_daemon.receiver.url)

        task_daemon.advance(minutes=5)

        assert [call.answered for call in task_daemon.receiver.calls] == [500, 500]
        assert [each.state for each in task_daemon.client.callbacks()] == ["dead"]


def test_the_plugin_costs_nothing_who_does_not_use_it() -> None:
    """pytest loads it in every run of everybody who has the distribution installed."""
    program = """
import sys
import pytest
before = set(sys.modules)
import task_client.testing
print(sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)

    assert done.stdout == "['task_client']\n"
