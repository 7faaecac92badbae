"""Metrics for Prometheus. Labels take few, fixed values: no name of a model is among them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from scanner.serve.jobs import State
from scanner.version import version

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SCAN_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)

Counts = Callable[[], Mapping[State, int]]


class _Jobs(Collector):
    """Jobs by state, counted when asked."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        """Yields the number of jobs in each state."""
        jobs = GaugeMetricFamily("adapter_scanner_jobs", "Jobs by state.", labels=["state"])
        for state, count in self._counts().items():
            jobs.add_metric([state.value], count)
        yield jobs

    def describe(self) -> Iterator[Metric]:
        """Yields nothing, so that registering does not count."""
        return iter(())


class Metrics:
    """The server's own counters.

    Args:
        counts: How many jobs are in each state.
    """

    def __init__(self, counts: Counts) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Jobs(counts))
        ProcessCollector(registry=self._registry)
        info = Gauge(
            "adapter_scanner_info",
            "The program's version.",
            ["version"],
            registry=self._registry,
        )
        info.labels(version()).set(1)
        self.deliveries = Counter(
            "adapter_scanner_deliveries",
            "Webhook deliveries by what became of them.",
            ["platform", "result"],
            registry=self._registry,
        )
        self.verdicts = Counter(
            "adapter_scanner_verdicts",
            "Verdicts.",
            ["platform", "verdict"],
            registry=self._registry,
        )
        self.write_backs = Counter(
            "adapter_scanner_write_backs",
            "Tries to write a verdict back, by how they ended.",
            ["platform", "result"],
            registry=self._registry,
        )
        self.scan_seconds = Histogram(
            "adapter_scanner_scan_seconds",
            "Time to fetch and scan.",
            ["platform"],
            buckets=_SCAN_BUCKETS,
            registry=self._registry,
        )

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)
