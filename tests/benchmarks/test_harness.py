"""The instruments tell what really happened: the client in C, the receiver, the baseline."""

import http.client
import json
import shutil
from pathlib import Path

import pytest

from benchmarks.harness.baseline import Baseline
from benchmarks.harness.daemon import Daemon
from benchmarks.harness.load import load
from benchmarks.harness.receiver import Receiver
from tests.conftest import missing


@pytest.fixture
def compiler() -> None:
    if shutil.which("gcc") is None:
        missing("gcc")


@pytest.mark.usefixtures("compiler")
def test_the_client_registers_what_it_says_and_the_baseline_answers_the_same_bytes(short_path: Path) -> None:
    with Daemon(short_path / "d") as daemon:
        found = load(daemon.socket, connections=3, count=20)
        many = load(daemon.socket, batch=7, count=5)
        asked = load(daemon.socket, get="/ping", count=9)
        refused = load(daemon.socket, task='{"id":"@","action":"simulated","zone":"nowhere"}', count=4, check=False)
        with Baseline(short_path / "b", daemon) as bare:
            same = load(bare.socket, connections=2, count=10)
        live = daemon.status()["live"]
        daemon.stop()

    assert live == 20 + 5 * 7 + 1  # and the one whose answer the baseline has
    assert (found.requests, found.tasks, found.wrong) == (20, 20, 0)
    assert 0 < found.p50_ms <= found.p99_ms <= found.max_ms
    assert (many.requests, many.tasks, many.wrong) == (5, 35, 0)
    assert (asked.requests, asked.tasks, asked.wrong) == (9, 0, 0)
    assert (refused.requests, refused.wrong) == (4, 4)
    assert refused.error.startswith("HTTP/1.1 4")
    assert (same.requests, same.wrong) == (10, 0)
    assert same.bytes == 10 * len((short_path / "b" / "answer").read_bytes())


@pytest.mark.usefixtures("compiler")
def test_a_benchmark_ends_when_an_answer_was_wrong(short_path: Path) -> None:
    with Daemon(short_path) as daemon, pytest.raises(SystemExit, match=r"cannot trust the figures: 1 of 1 answers were wrong"):
        load(daemon.socket, path="/v1/nothing", count=1)


def test_the_receiver_knows_what_came_and_what_came_again(short_path: Path) -> None:
    with Receiver(short_path) as receiver:
        connection = http.client.HTTPConnection("127.0.0.1", receiver.port, timeout=20)
        for name in ("a", "b", "a"):
            body = json.dumps({"data": {"task": {"id": f"disk-{name}"}}})
            connection.request("POST", "/hook", body, {"Webhook-Id": f"msg_{name}"})
            connection.getresponse().read()
        connection.close()
        receiver.await_count(3, within=20)
        arrivals = receiver.arrivals()
        receiver.forget()
        after = receiver.count()

    assert arrivals.ids == ["msg_a", "msg_b", "msg_a"]
    assert arrivals.subjects == ["disk-a", "disk-b", "disk-a"]
    assert arrivals.repeated == 1
    assert arrivals.times == sorted(arrivals.times)
    assert after == 0
