"""What the service counts, in the form that Prometheus reads.

Counts are plain integers and become metric families when they are asked for: prometheus_client's own counters take a
lock for each step, which the hot path would feel.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from featherweight.apps.fraud.decoding import Unread
from featherweight.apps.fraud.transactions import Decision

SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Histogram:
    """How many observations were at most each of `bounds`, and their sum."""

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, int]]:
        """(upper bound, how many were at most that)."""
        total, rows = 0, []
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            total += count
            rows.append((bound, total))
        return rows


class ScoringMetrics(Collector):
    """Decisions and labels so far; `gauges` are read when somebody asks."""

    def __init__(self, gauges: Mapping[str, tuple[str, Callable[[], float]]], model: Callable[[], str]) -> None:
        self.outcomes: Counter[str] = Counter()
        self.fallbacks = 0
        self.duplicates = 0
        self.conflicts = 0
        self.unread = Unread()
        self.late = 0
        self.labels: Counter[str] = Counter()
        self.label_conflicts = 0
        self._gauges, self._model = gauges, model

    def decided(self, decision: Decision) -> None:
        """Count a decision by its outcome and by what was odd about it."""
        self.outcomes[decision.outcome] += 1
        if decision.fallback:
            self.fallbacks += 1
        if decision.duplicate:
            self.duplicates += 1
        elif decision.conflict:
            self.conflicts += 1
        if decision.late:
            self.late += 1

    def collect(self) -> Iterator[Metric]:
        """What prometheus_client asks a collector for."""
        yield _counter("decisions", "Decisions by outcome.", ["outcome"], {(k,): v for k, v in self.outcomes.items()})
        yield _counter("fallback_decisions", "Decisions that no model made.", [], {(): self.fallbacks})
        yield _counter(
            "duplicate_transactions",
            "Transactions sent again, as long as their customer's history (1,024 at most) has them.",
            [],
            {(): self.duplicates},
        )
        yield _counter(
            "conflicting_transactions",
            "Transactions with the id of another one that has another amount, customer, terminal or time.",
            [],
            {(): self.conflicts},
        )
        yield _counter(
            "rows_with_unknown_fields",
            "Transactions and labels with fields that are not known and were ignored.",
            [],
            {(): self.unread.rows},
        )
        yield _counter(
            "late_transactions",
            "Transactions more than a day older than younger ones of their customer or terminal.",
            [],
            {(): self.late},
        )
        yield _counter(
            "labels",
            "Labels by whether their transaction was known.",
            ["found"],
            {(k,): v for k, v in self.labels.items()},
        )
        yield _counter(
            "conflicting_labels",
            "Labels with another customer, terminal or time than their transaction, or that one history only knows.",
            [],
            {(): self.label_conflicts},
        )
        info = GaugeMetricFamily("featherweight_model_info", "The artifact that decides.", labels=["model"])
        info.add_metric([self._model()], 1)
        yield info
        for name, (text, read) in self._gauges.items():
            yield GaugeMetricFamily(f"featherweight_{name}", text, value=read())


class RequestMetrics(Collector):
    """Requests over HTTP so far."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        self.seconds: dict[str, Histogram] = {}
        self.refused_connections = 0

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count an answer by its route and status, with how long it took."""
        self.requests[route, status] += 1
        histogram = self.seconds.get(route)
        if histogram is None:
            histogram = self.seconds[route] = Histogram()
        histogram.observe(seconds)

    def collect(self) -> Iterator[Metric]:
        """What prometheus_client asks a collector for."""
        yield _counter(
            "http_requests",
            "Requests by route and status.",
            ["route", "status"],
            {(r, str(s)): n for (r, s), n in self.requests.items()},
        )
        times = HistogramMetricFamily(
            "featherweight_http_request_seconds", "From a request's first byte read to its answer.", labels=["route"]
        )
        for route, histogram in self.seconds.items():
            times.add_metric([route], histogram.buckets(), histogram.sum)
        yield times
        yield GaugeMetricFamily(
            "featherweight_refused_connections", "Connections turned away.", value=self.refused_connections
        )


def _counter(name: str, text: str, labels: Sequence[str], values: Mapping[tuple[str, ...], int]) -> CounterMetricFamily:
    family = CounterMetricFamily(f"featherweight_{name}", text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def render_metrics(collectors: Iterable[Collector]) -> Callable[[], bytes]:
    """A function that gives the text for Prometheus: the collectors' and the process's own memory, CPU and files."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    for collector in collectors:
        registry.register(collector)
    return lambda: generate_latest(registry)
