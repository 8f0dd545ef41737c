import logging
import threading
from collections.abc import Callable

import pytest

from task_daemon.clock import FakeClock
from task_daemon.engine.local.workers import Aside, Job, Workers

Eventually = Callable[..., None]


class Log:
    def __init__(self, clock: FakeClock, count: int = 2) -> None:
        self.stranded: list[str] = []
        self.returned: list[str] = []
        self.workers = Workers(count, clock, lambda _zone: 60.0, self.stranded.append, self.returned.append, lambda _ended: None)


def test_f6_others_go_on_when_all_threads_hang(clock: FakeClock, eventually: Eventually) -> None:
    log, hold, done = Log(clock), threading.Event(), threading.Event()

    def wait(_job: Job) -> None:
        hold.wait(30)

    for zone in ("a", "b"):
        log.workers.submit(zone, wait)
    eventually("both hang", lambda: len(log.workers.busy()) == 2)
    log.workers.submit("c", lambda _job: done.set())
    clock.advance(59)
    assert log.workers.check() == []
    clock.advance(1)
    assert sorted(log.workers.check()) == ["a", "b"]
    assert done.wait(10)
    assert sorted(log.stranded) == ["a", "b"]
    assert set(log.workers.stuck()) == {"a", "b"}
    hold.set()
    eventually("the abandoned have returned", lambda: sorted(log.returned) == ["a", "b"])
    eventually("nothing is left", lambda: log.workers.unfinished() == 0)
    assert log.workers.stuck() == {}
    log.workers.close()


def test_check_is_due_when_a_job_that_waits_for_a_thread_could_have_become_stuck(
    clock: FakeClock, eventually: Eventually
) -> None:
    log, hold = Log(clock, count=1), threading.Event()
    assert log.workers.next_check() is None

    def wait(_job: Job) -> None:
        hold.wait(30)

    for zone in ("a", "b"):
        log.workers.submit(zone, wait)
        assert log.workers.next_check() == clock.monotonic() + 60.0
    eventually("one hangs", lambda: log.workers.busy() == ["a"])
    clock.advance(60)
    assert log.workers.check() == ["a"]
    assert log.workers.next_check() == clock.monotonic() + 60.0
    hold.set()
    eventually("nothing is left", lambda: log.workers.unfinished() == 0)
    assert log.workers.next_check() is None
    log.workers.close()


def test_job_is_not_stuck_when_it_gives_a_sign_of_life(clock: FakeClock, eventually: Eventually) -> None:
    log, hold = Log(clock), threading.Event()
    jobs: list[Job] = []

    def run(job: Job) -> None:
        jobs.append(job)
        hold.wait(30)

    log.workers.submit("a", run)
    eventually("it runs", lambda: jobs)
    clock.advance(50)
    jobs[0].touch()
    clock.advance(50)
    assert log.workers.check() == []
    assert log.workers.next_check() == clock.monotonic() + 10
    hold.set()
    log.workers.close()


def test_f5_worker_lives_on_when_a_job_raises(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    log, done = Log(clock, 1), threading.Event()

    def run(_job: Job) -> None:
        raise SystemExit("not even this")

    log.workers.submit("a", run)
    log.workers.submit("a", lambda _job: done.set())
    assert done.wait(10)
    assert "not even this" in caplog.text
    log.workers.close()


def test_calls_aside_run_in_order_and_survive_an_exception(caplog: pytest.LogCaptureFixture) -> None:
    aside, seen = Aside("test"), list[int]()
    aside.submit(lambda: seen.append(1))
    aside.submit(lambda: seen.append(1 // 0))
    aside.submit(lambda: seen.append(2))
    aside.close()
    assert seen == [1, 2]
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
