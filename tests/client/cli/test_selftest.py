"""`taskctl selftest --crash`: what it prints, its exit code, and whether the evidence is kept."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from task_client.cli import main
from task_client.cli.selftest import told
from task_client.selftest.crash import Result
from task_client.selftest.disk import Cost

pytestmark = pytest.mark.crash


def test_report_is_printed_and_nothing_is_left_when_no_promise_was_broken(short_path: Path) -> None:
    done = CliRunner().invoke(main, ["selftest", "--crash", "--rounds=1", "--seed=7", f"--dir={short_path}", "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert (report["problems"], report["seed"]) == ([], 7)
    assert report["kills"] >= 1
    assert report["tasks"] >= 20
    assert report["disk"]["median"] <= report["disk"]["p99"]
    assert report["commits_per_second"] > 0
    assert list(short_path.iterdir()) == []


def test_exit_is_1_and_the_evidence_is_kept_when_the_daemon_does_not_start(
    short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASK_DAEMON_CRASH_AT", "migrate.inside")
    done = CliRunner().invoke(main, ["selftest", "--crash", "--rounds=1", f"--dir={short_path}"])
    assert done.exit_code == 1
    assert "BROKEN: the daemon ended with code -9 at its start" in done.stdout
    (home,) = short_path.iterdir()
    assert f"the evidence is kept in {home}" in done.stdout
    assert (home / "w" / "store.db").exists()


def test_usage_is_wrong_when_it_is_not_said_what_to_test() -> None:
    assert CliRunner().invoke(main, ["selftest"]).exit_code == 2


def test_every_broken_promise_is_told() -> None:
    result = Result(Path("/evidence"), 7, kills=3, disk=Cost(0.5, 1.25), problems=["acknowledged but lost: good-1"])
    lines = told(result)
    assert "BROKEN: acknowledged but lost: good-1" in lines
    assert any("0.50 ms (median), 1.25 ms (p99)" in line for line in lines)
    assert not any(line.startswith("ok") for line in lines)
