"""All that this process counts, in a registry of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from cloudly.metrics.fleet import FleetGauges
from cloudly.metrics.requests import Requests
from cloudly.store.store import Store
from interfaces.world import World

COMMIT_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)
DECISIONS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    def __init__(self, store: Store, world: World, *, heartbeat_every_s: float) -> None:
        self.requests = Requests()
        self.fleet = FleetGauges(store, world, heartbeat_every_s)
        self._registry = CollectorRegistry(auto_describe=False)
        self._commit_s = Histogram(
            "cloudly_commit_seconds",
            "How long the database took to commit decisions.",
            buckets=COMMIT_S,
            registry=self._registry,
        )
        self._decisions = Histogram(
            "cloudly_commit_decisions",
            "How many decisions shared one commit.",
            buckets=DECISIONS,
            registry=self._registry,
        )
        for collector in (
            self.requests,
            self.fleet,
            Counted(store),
            ProcessCollector(registry=None),
        ):
            self._registry.register(collector)
        store.when_committed(self._committed)

    def gauge(self, name: str, words: str, value: Callable[[], float]) -> None:
        """One more value, asked for at each scrape."""
        self._registry.register(Asked(name, words, value))

    async def page(self, accept: str) -> tuple[bytes, str]:
        """What a scraper gets, and its media type."""
        await self.fleet.refresh()
        encode, media_type = choose_encoder(accept)
        return encode(self._registry), media_type

    def _committed(self, decisions: int, seconds: float) -> None:
        self._decisions.observe(decisions)
        self._commit_s.observe(seconds)


class Counted(Collector):
    """What the store counts of itself."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def collect(self) -> Iterator[Metric]:
        store = self._store
        for name, words, value in (
            ("cloudly_heartbeats", "Heartbeats that were taken.", store.beats),
            ("cloudly_journal_batches", "Batches of journals that were taken.", store.batches),
            ("cloudly_journal_facts", "Facts in them, those known before included.", store.facts),
            ("cloudly_commits", "Commits to the database.", store.database.commits),
            ("cloudly_decisions", "Decisions in them.", store.database.decisions),
        ):
            yield CounterMetricFamily(name, words, value=value)
        yield GaugeMetricFamily(
            "cloudly_queue_length", "Decisions that wait for a commit.", value=store.waiting
        )


class Asked(Collector):
    def __init__(self, name: str, words: str, value: Callable[[], float]) -> None:
        self._name = name
        self._words = words
        self._value = value

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(self._name, self._words, value=self._value())
