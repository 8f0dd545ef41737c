"""What is counted, as Prometheus reads it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from task_daemon.api.context import Phase
from tests.api.conftest import STRANGER, Caller, World

DOCS = Path(__file__).parents[2] / "docs"
NAME = re.compile(r"\btask_daemon_[a-z_]+")
SUFFIXES = ("_bucket", "_sum", "_count")


async def scraped(ask: Caller, **headers: str) -> dict[str, Any]:
    """Families by name (counters with `_total`, as they are written)."""
    answer = await ask.get("/metrics", None, **headers)
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    found = {}
    for family in text_string_to_metric_families(answer.body.decode()):
        assert family.documentation, family.name
        found[family.name + ("_total" if family.type == "counter" else "")] = family
    return found


def value(families: dict[str, Any], name: str, **labels: str) -> float:
    """The sum of the samples that have these labels."""
    family = name if name in families else re.sub(r"_(count|sum|bucket)$", "", name)
    return float(sum(s.value for s in families[family].samples if s.name == name and labels.items() <= s.labels.items()))


async def test_tasks_polls_and_events_are_counted(ask: Caller, world: World) -> None:
    await ask.register("long")
    await ask.ended("quick-1")
    found = await scraped(ask)

    assert value(found, "task_daemon_tasks", zone="play", action="backup", state="running") == 1
    assert value(found, "task_daemon_tasks_ended_total", zone="play", action="backup", state="succeeded") == 1
    assert value(found, "task_daemon_events_total", type="task.registered") == 2
    assert value(found, "task_daemon_polls_total", zone="play", outcome="answered") > 1
    assert value(found, "task_daemon_poll_seconds_count", backend="simulated") > 1
    assert value(found, "task_daemon_poll_lateness_seconds_count") > 1
    assert value(found, "task_daemon_detection_seconds_count") == 1
    assert value(found, "task_daemon_zone_up", zone="play") == 1
    assert value(found, "task_daemon_requests_total", status="202") == 2
    assert value(found, "task_daemon_ready") == 1
    assert value(found, "process_resident_memory_bytes") > 1e6


async def test_callbacks_are_counted_with_their_outcome_and_the_age_of_the_oldest(ask: Caller, world: World) -> None:
    callback = {"url": "http://receiver/hook"}
    await ask.ended("quick-1", callback=callback)
    world.receiver_up = False
    await ask.ended("quick-2", callback=callback)
    await world.engine.idle()
    world.clock.advance(60)
    await ask.quiet()
    found = await scraped(ask)

    assert value(found, "task_daemon_callback_attempts_total", via="webhook", outcome="delivered") == 1
    assert value(found, "task_daemon_callback_attempts_total", via="webhook", outcome="later") >= 1
    assert value(found, "task_daemon_callbacks_pending") == 1
    assert 60 <= value(found, "task_daemon_callbacks_oldest_seconds") < 120
    assert value(found, "task_daemon_callback_delay_seconds_count") == 1
    assert value(found, "task_daemon_callback_attempt_seconds_count") >= 2


async def test_a_paused_zone_and_a_daemon_that_is_not_ready_are_seen(ask: Caller, world: World) -> None:
    await ask.quiet()
    world.phase = Phase("degraded", "the disk is full", writable=True)
    found = await scraped(ask)

    assert value(found, "task_daemon_zone_paused", zone="play") == 1
    assert value(found, "task_daemon_ready") == 0


async def test_a_histogram_is_cumulative(ask: Caller, world: World) -> None:
    for seconds in (0.0001, 0.003, 99.0):
        world.engine.measures.lag.add(seconds)
    (family,) = [f for name, f in (await scraped(ask)).items() if name == "task_daemon_loop_lag_seconds"]
    buckets = {s.labels["le"]: s.value for s in family.samples if s.name.endswith("_bucket")}

    assert (buckets["0.0005"], buckets["0.005"], buckets["2.5"], buckets["+Inf"]) == (1, 2, 2, 3)


async def test_f14_metrics_are_open_and_name_no_task(ask: Caller, world: World) -> None:
    task = await ask.register("secret-disk", labels={"team": "a7"}, callback={"url": "http://receiver/hook?token=abc"})
    await ask.ended("quick-1")
    text = (await ask.get("/metrics", by=STRANGER)).body.decode()

    assert "task_daemon_tasks" in text
    assert not [word for word in (task["uid"], "secret-disk", "a7", "receiver", "quick-1") if word in text]


@pytest.mark.parametrize("accept", ["text/plain", "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"])
async def test_a_scraper_gets_what_it_accepts(ask: Caller, accept: str) -> None:
    assert await scraped(ask, Accept=accept)


async def test_every_metric_is_documented_and_no_other(ask: Caller) -> None:
    found = {name for name in await scraped(ask) if name.startswith("task_daemon_")}
    documented = set(re.findall(r"(?m)^\| `(task_daemon_[a-z_]+)` \|", (DOCS / "metrics.md").read_text()))

    assert documented == found


async def test_dashboard_and_alerts_name_metrics_that_exist(ask: Caller) -> None:
    found = await scraped(ask)
    known = set(found) | {name + suffix for name, f in found.items() if f.type == "histogram" for suffix in SUFFIXES}
    dashboard = json.loads((DOCS / "monitoring" / "dashboard.json").read_text())
    alerts = yaml.safe_load((DOCS / "monitoring" / "alerts.yaml").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    rules = [rule for group in alerts["groups"] for rule in group["rules"]]

    assert len(queries) > 10
    assert len(rules) > 5
    assert all(rule["annotations"]["summary"] and rule["labels"]["severity"] for rule in rules)
    for expression in [*queries, *(rule["expr"] for rule in rules)]:
        assert set(NAME.findall(expression)) <= known, expression
