"""`task-daemon --simulate FILE`: a whole daemon on simulated zones, whose time may run faster.

The file is a configuration file with two things more: how the jobs of all zones go, and how fast time runs.

    speed = 60                      # one second is a minute to the daemon: polls, deadlines, retries [1]

    [[job]]                         # as in task_daemon.backends.simulated
    id = "disk-*"
    finish_after = 10800

    [zones.vm1]                     # without any: zone1 and zone2
    unreachable = [[60, 120]]       # what else a simulated zone can do
"""

from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import Meta, Struct

from task_daemon import config
from task_daemon.backends.simulated import Job

FASTEST = 3600.0
LONGEST_POLL = 600.0  # seconds of the daemon's time; short ones would be over before a thread has run


class Pace(Struct, frozen=True):
    speed: Annotated[float, Meta(ge=1, le=FASTEST)] = 1.0


def load(file: str, flags: Mapping[str, Any], find_family: config.FindFamily) -> tuple[config.Config, float]:
    """The configuration, and how many of the daemon's seconds go into one. Raises ConfigError with every mistake."""
    mistakes: list[str] = []
    data = config.read_file(file)
    pace = config.read_table("", {"speed": data.pop("speed")} if "speed" in data else {}, Pace, mistakes)
    mistakes = [mistake.removeprefix("[] ") for mistake in mistakes]
    jobs = data.pop("job", [])
    if not isinstance(jobs, list):
        mistakes.append("job: must be tables [[job]]")
        jobs = []
    for number, job in enumerate(jobs, 1):
        config.read_table(f"job {number}", job, Job, mistakes)
    zones = data.setdefault("zones", {"zone1": {}, "zone2": {}})
    if isinstance(zones, dict):
        own = {"backend": "simulated", "scenario": [] if mistakes else jobs}
        fast = {} if pace is None or pace.speed == 1 else {"poll_timeout": LONGEST_POLL}
        data["zones"] = {name: {**fast, **zone, **own} if isinstance(zone, dict) else zone for name, zone in zones.items()}
        data["zones"].setdefault("local", {"enabled": False})
    settings = config.checked(file, data, flags, find_family, mistakes)
    return settings, 1.0 if pace is None else pace.speed
