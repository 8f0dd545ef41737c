"""What was counted, as Prometheus reads it. The only module that knows the exporter's library; `system.Metrics` loads it.

The numbers are copied on the event loop and written out on a thread, so that thousands of zones do not hold it up.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from task_daemon.api.context import Api
from task_daemon.core.measures import Durations
from task_daemon.core.ports import Backlog

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
P = "task_daemon_"
DOWN = frozenset({"unreachable", "hung"})


class Families(Collector):
    """The numbers of one moment."""

    def __init__(self, api: Api, backlog: Backlog) -> None:
        manager, measures = api.manager, api.manager.measures()
        phase = api.daemon.phase()
        self._version = api.daemon.version
        self._tasks = dict(manager.tally())
        self._zones = manager.zones()
        self._status = manager.status()
        self._counted: list[tuple[str, str, tuple[str, ...], Mapping[Any, int]]] = [
            ("tasks_ended", "Tasks that have ended.", ("zone", "action", "state"), dict(measures.ended)),
            ("events", "Events written, by type.", ("type",), dict(measures.events)),
            ("polls", "Polls of a zone: answered, unreachable or raised.", ("zone", "outcome"), dict(measures.polls)),
            (
                "callback_attempts",
                "Attempts to make a callback: delivered, later (tried again) or refused (dead).",
                ("via", "outcome"),
                dict(measures.attempts),
            ),
            ("requests", "Requests answered, by HTTP status.", ("status",), dict(measures.requests)),
        ]
        self._durations = [
            ("poll_lateness_seconds", "From when a poll was due to its beginning.", _copy(measures.late)),
            ("detection_seconds", "From the end of the work, at the earliest, to the end on disk.", _copy(measures.detection)),
            ("callback_attempt_seconds", "One attempt to make a callback.", _copy(measures.attempt)),
            ("callback_delay_seconds", "From an event to the acceptance of its callback.", _copy(measures.told)),
            ("store_commit_seconds", "One commit, fsync included.", _copy(measures.commit)),
            ("loop_lag_seconds", "How late the event loop is, looked at every second.", _copy(measures.lag)),
        ]
        self._polls = {backend: _copy(durations) for backend, durations in measures.poll.items()}
        self._writes = measures.operations
        status, outbox, store = self._status, self._status.get("outbox", {}), self._status.get("store", {})
        workers = status.get("workers", {})
        self._gauges = [
            ("start_time_seconds", "When the daemon was started, in Unix time.", api.daemon.started_at),
            ("ready", "Whether new work is taken (as /readyz).", api.unready(new_work=True) is None),
            ("draining", "Whether the daemon is stopping.", phase.name == "draining"),
            ("tasks_dirty", "Tasks whose progress is not on disk yet.", status.get("dirty", 0)),
            ("tasks_untidy", "Ended tasks with something left to clean up.", status.get("untidy", 0)),
            ("workers", "Worker threads for polls.", workers.get("count", 0)),
            ("workers_busy", "Worker threads that poll now.", len(workers.get("busy", ()))),
            ("workers_stuck", "Polls that were given up and have not come back.", len(status.get("stuck", ()))),
            ("callbacks_pending", "Callbacks still to be made.", backlog.pending),
            ("callbacks_dead", "Callbacks given up, until replayed, read or forgotten.", backlog.dead),
            ("callbacks_oldest_seconds", "Age of the oldest pending callback, 0 without one.", _age(api, backlog)),
            ("callbacks_in_flight", "Callbacks being made now.", outbox.get("in_flight", 0)),
            ("callback_targets_held", "Receivers that are only probed, because they fail.", len(outbox.get("held", ()))),
            ("store_bytes", "Size of the store, its write-ahead log included.", store.get("bytes", 0)),
            ("store_queued", "Writes that wait for a commit or are in one.", store.get("queued", 0)),
            ("store_full", "Whether the disk of the store has no room for new work.", store.get("full", False)),
            ("requests_in_flight", "Requests being answered, held ones included.", api.in_flight),
            ("streams", "Open streams of events.", len(api.streams)),
        ]

    def text(self) -> bytes:
        """Any thread."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        ProcessCollector(registry=registry)
        GCCollector(registry=registry)
        return generate_latest(registry)

    def collect(self) -> Iterator[Metric]:
        info = GaugeMetricFamily(P + "info", "1; the version is the label.", labels=("version",))
        info.add_metric((self._version,), 1)
        yield info
        tasks = GaugeMetricFamily(P + "tasks", "Live tasks.", labels=("zone", "action", "state"))
        for group, count in self._tasks.items():
            tasks.add_metric(group, count)
        yield tasks
        yield from self._of_zones()
        for name, text, labels, counts in self._counted:
            counter = CounterMetricFamily(P + name, text, labels=labels)
            for values, count in counts.items():
                counter.add_metric([str(v) for v in (values if isinstance(values, tuple) else (values,))], count)
            yield counter
        yield CounterMetricFamily(P + "store_writes", "Writes in all commits; a commit has many under load.", self._writes)
        polls = HistogramMetricFamily(P + "poll_seconds", "A whole poll of a zone, by kind of backend.", labels=("backend",))
        for backend, durations in self._polls.items():
            _add(polls, (backend,), durations)
        yield polls
        for name, text, durations in self._durations:
            histogram = HistogramMetricFamily(P + name, text, labels=())
            _add(histogram, (), durations)
            yield histogram
        for name, text, value in self._gauges:
            yield GaugeMetricFamily(P + name, text, float(value))

    def _of_zones(self) -> Iterator[Metric]:
        up = GaugeMetricFamily(P + "zone_up", "0 while the zone is unreachable or a poll hangs.", labels=("zone", "backend"))
        paused = GaugeMetricFamily(P + "zone_paused", "1 while nobody polls the zone, by order.", labels=("zone",))
        for zone in self._zones:
            up.add_metric((zone["zone"], zone["backend"]), zone["state"] not in DOWN)
            paused.add_metric((zone["zone"],), zone["state"] == "paused")
        yield up
        yield paused


def _copy(durations: Durations) -> Durations:
    copy = Durations(durations.bounds)
    copy.counts, copy.total = list(durations.counts), durations.total
    return copy


def _add(family: HistogramMetricFamily, labels: tuple[str, ...], durations: Durations) -> None:
    buckets, reached = [], 0
    for bound, count in zip([*map(str, durations.bounds), "+Inf"], durations.counts, strict=True):
        reached += count
        buckets.append((bound, float(reached)))
    family.add_metric(labels, buckets=buckets, sum_value=durations.total)


def _age(api: Api, backlog: Backlog) -> float:
    return 0.0 if backlog.oldest is None else max(0.0, api.manager.now() - backlog.oldest)
