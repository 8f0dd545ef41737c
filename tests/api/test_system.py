"""What the daemon says about itself."""

from typing import Any

import pytest

from task_daemon.api.context import Phase
from tests.api.conftest import OPERATOR, VERSION, Caller, World


async def test_info_says_what_runs_and_who_asks(ask: Caller) -> None:
    info = (await ask.get("/v1/info", by=OPERATOR)).json

    assert (info["version"], info["boot_id"], info["phase"]) == (VERSION, "boot", "ready")
    assert info["you"] == {"uid": OPERATOR.uid, "gid": OPERATOR.gid, "pid": OPERATOR.pid, "roles": ["operator"]}
    assert info["started_at"].endswith("Z")
    assert info["limits"] == {"live_tasks": 50}
    assert isinstance(info["status"], dict)


@pytest.mark.parametrize("phase", ["ready", "starting", "draining", "degraded"])
async def test_health_is_good_as_long_as_the_loop_turns(ask: Caller, world: World, phase: Any) -> None:
    world.phase = Phase(phase)

    assert (await ask.get("/healthz")).status == 200


@pytest.mark.parametrize("phase", ["starting", "draining", "degraded"])
async def test_ready_says_why_not(ask: Caller, world: World, phase: Any) -> None:
    world.phase = Phase(phase, "because of this")
    answer = await ask.get("/readyz")

    assert (answer.status, answer.json["code"]) == (503, phase)
    assert "because of this" in answer.json["detail"]
    assert "Retry-After" in answer.headers


async def test_ready_is_good_when_work_can_be_taken(ask: Caller) -> None:
    answer = await ask.get("/readyz")

    assert (answer.status, answer.json) == (200, {"status": "ready"})
