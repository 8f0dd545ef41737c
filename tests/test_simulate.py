"""`task-daemon --simulate`: hours in a second on a real daemon, and a bad scenario named with all its mistakes."""

import re
import signal
import subprocess
import sys
from pathlib import Path

from task_client import Client, DaemonUnreachable
from task_daemon.clock import FastClock
from tests.waiting import eventually

PAGE = (Path(__file__).parents[1] / "docs" / "testing.md").read_text()
BAD = """
speed = 9999
colour = "blue"
[daemon]
workers = 0
[[job]]
finish_afer = 3
[[job]]
fail_at = 150
stall_for = -1
[zones.vm1]
unreachable = 7
"""


def test_three_hours_pass_in_three_seconds_as_the_page_says(short_path: Path) -> None:
    scenario, path = short_path / "scenario.toml", str(short_path / "d.sock")
    (example,) = re.findall(r"(?ms)^```toml\n(speed.*?)^```", PAGE)
    scenario.write_text(example)
    command = [sys.executable, "-m", "task_daemon", f"--simulate={scenario}", f"--unix-socket={path}"]
    with Client(path) as client, (short_path / "log").open("wb") as log:
        daemon = subprocess.Popen(command, stderr=log, env={"TMPDIR": str(short_path)})
        try:
            eventually("the daemon answers", lambda: answers(client))
            disk = client.register("disk-7", "backup", "vm1")
            bad = client.register("any", "restore_backup", "vm1")

            assert client.wait(disk.uid, timeout=60).succeeded
            failed = client.wait(bad.uid, timeout=60)

            assert failed.error is not None
            assert failed.error.message == "No space left on device"
            assert [zone["zone"] for zone in client.zones()] == ["vm1"]
            assert list(short_path.glob("task-daemon-*"))
        finally:
            daemon.send_signal(signal.SIGTERM)
            assert daemon.wait(20) == 0
    assert list(short_path.glob("task-daemon-*")) == []  # its workspace


def answers(client: Client) -> bool:
    try:
        return client.ping()
    except DaemonUnreachable:
        return False


def test_every_mistake_of_a_scenario_is_named(tmp_path: Path) -> None:
    scenario = tmp_path / "bad.toml"
    scenario.write_text(BAD)
    command = [sys.executable, "-m", "task_daemon", f"--simulate={scenario}", "--check-config"]

    done = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert all(line.startswith(f"task-daemon: {scenario}: ") for line in lines)
    for mistake in (
        ": speed = 9999: expected float <= 3600",
        "colour]: unknown option",
        "[daemon] workers = 0: ",
        "[job 1] finish_afer: unknown option; accepted: action, fail_at",
        "[job 2] fail_at = 150: expected float <= 100",
        "[job 2] stall_for = -1: expected float >= 0",
        "[zones.vm1] unreachable = 7: expected array",
    ):
        assert [line for line in lines if mistake in line], (mistake, lines)
    assert len(lines) == 7


def test_a_fast_clock_runs_at_its_speed() -> None:
    clock = FastClock(3600)
    wall, steady = clock.now(), clock.monotonic()

    while clock.monotonic() < steady + 36:  # a hundredth of a second
        pass

    assert clock.now() - wall >= 36
    assert abs((clock.now() - wall) - (clock.monotonic() - steady)) < 36
