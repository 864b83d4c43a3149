"""Requests, counted by route and by how they ended. It is in the path of every heartbeat: two look-ups and three sums.

Rules:
- A label is never made of what a stranger sent: routes by their template, ends by their class, no node anywhere.
- What is meant to last (a live page, a log stream) is counted and not measured.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Half a millisecond is a heartbeat's work; 50 and 250 ms are the goals of PostgreSQL and SQLite (issue 5)."""
LASTING = ("/live", "/log-stream")
NOWHERE = "none"
"""The route of a request that no route took."""


class Ended:
    """How the requests of one route ended, and how long they took."""

    __slots__ = ("by_class", "by_time", "total_s")

    def __init__(self) -> None:
        self.by_class = [0] * 10
        self.by_time = [0] * (len(BOUNDS_S) + 1)
        self.total_s = 0.0

    def buckets(self) -> list[tuple[str, float]]:
        below, found = 0, []
        for bound, count in zip((*map(str, BOUNDS_S), "+Inf"), self.by_time, strict=True):
            below += count
            found.append((bound, float(below)))
        return found


class Requests(Collector):
    """Plain integers, because a heartbeat has no microseconds to spare; the library only words them."""

    def __init__(self) -> None:
        self._routes: dict[str, Ended] = {}

    def ended(self, route: str, status: int, took_s: float) -> None:
        """A request of this route's template was answered."""
        try:
            ended = self._routes[route]
        except KeyError:
            ended = self._routes[route] = Ended()
        ended.by_class[status // 100] += 1
        ended.by_time[bisect_left(BOUNDS_S, took_s)] += 1
        ended.total_s += took_s

    def collect(self) -> Iterator[Metric]:
        ends = CounterMetricFamily(
            "cloudly_requests", "Requests that were answered.", labels=("route", "status")
        )
        took = HistogramMetricFamily(
            "cloudly_request_seconds", "How long requests took.", labels=("route",)
        )
        for route, ended in sorted(self._routes.items()):
            for status, count in enumerate(ended.by_class):
                if count:
                    ends.add_metric((route, f"{status}xx"), count)
            if not route.endswith(LASTING):
                took.add_metric((route,), ended.buckets(), ended.total_s)
        yield ends
        yield took
