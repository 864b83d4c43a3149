"""What the database says of the fleet: asked when somebody scrapes, and not again for a while.

Rules:
- Counted by the database, never by walking over nodes here; no label names a node.
- On SQLite a question holds up heartbeats: nodes are counted a slice at a time, with room for others in between, and
  what took long is asked so much less often, a hundredth of the time.
- States are the page's (`cloudly.views.state_of`), without those that only a report tells.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

import anyio
from anyio.lowlevel import checkpoint
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from cloudly.problems import StoreUnavailable
from cloudly.store.sql import Connection, Row
from cloudly.store.store import Store
from cloudly.views import LATE_INTERVALS, ONLINE_INTERVALS
from interfaces.world import World, now_ms

log = logging.getLogger("cloudly")

KEPT_S = 15.0
SHARE = 100
"""After a question that took t, none is asked for so many times t."""
PATIENCE_S = 8.0
SLICE = 10_000
"""Nodes counted by one question: some 20 ms of a million, which take 2 s in all."""
NODES = (
    "SELECT CASE WHEN n.retired_at_ms IS NOT NULL THEN 'retired' WHEN n.revoked_at_ms IS NOT NULL THEN 'revoked'"
    " WHEN n.quarantined_at_ms IS NOT NULL THEN 'quarantined'"
    " WHEN f.alarm=1 OR n.needs_operator IS NOT NULL THEN 'needs-operator'"
    " WHEN l.last_seen_at_ms IS NULL THEN 'new' WHEN l.last_seen_at_ms>=?1 THEN 'online'"
    " WHEN l.last_seen_at_ms>=?2 THEN 'late' ELSE 'offline' END AS state, count(*)"
    " FROM node n LEFT JOIN node_live l ON l.node=n.id LEFT JOIN fence f ON f.node=n.id"
    " WHERE n.id>?3 AND n.id<=?4 GROUP BY 1"
)
DEPLOYMENTS = (
    "SELECT p.state, count(*) FROM desired d JOIN deployment p ON p.deployment=d.deployment"
    " WHERE d.node>? AND d.node<=? GROUP BY p.state"
)
ROLLOUTS = "SELECT state, count(*) FROM rollout GROUP BY state"
WAITING = (
    "SELECT count(*), min(d.queued_at_ms) FROM delivery d JOIN webhook w ON w.id=d.webhook"
    " WHERE d.next_at_ms>=0 AND w.disabled_at_ms IS NULL"
)
NODE_STATES = ("new", "online", "late", "offline", "needs-operator", "quarantined", "revoked", "retired")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Counts:
    """The fleet at one moment."""

    nodes: Mapping[str, int] = field(default_factory=dict)
    deployments: Mapping[str, int] = field(default_factory=dict)
    rollouts: Mapping[str, int] = field(default_factory=dict)
    deliveries: int = 0
    oldest_ms: int | None = None
    """Since when the oldest delivery to a webhook waits."""
    at_ms: int = 0


async def count(store: Store, *, now_ms: int, every_s: float) -> Counts:
    """Raises StoreUnavailable."""
    interval_ms = every_s * 1000
    online = now_ms - int(ONLINE_INTERVALS * interval_ms)
    late = now_ms - int(LATE_INTERVALS * interval_ms)
    nodes, deployments = Counter(dict.fromkeys(NODE_STATES, 0)), Counter[str]()

    def some(db: Connection, after: int) -> tuple[dict[str, int], dict[str, int]]:
        upto = after + SLICE
        found = db.execute(NODES, (online, late, after, upto)).fetchall()
        return dict(found), dict(db.execute(DEPLOYMENTS, (after, upto)).fetchall())

    last, rollouts, waiting = await store.read(_others)
    for after in range(0, last, SLICE):
        of_nodes, of_deployments = await store.read(partial(some, after=after))
        nodes.update(of_nodes)  # not in the question: that may be asked twice
        deployments.update(of_deployments)
        await checkpoint()
    return Counts(nodes, deployments, rollouts, waiting[0], waiting[1], now_ms)


def _others(db: Connection) -> tuple[int, dict[str, int], Row]:
    """The greatest number of a node, rollouts by state, and what waits for webhooks."""
    last = db.execute("SELECT max(id) FROM node").fetchone()[0] or 0
    return last, dict(db.execute(ROLLOUTS).fetchall()), db.execute(WAITING).fetchone()


class FleetGauges(Collector):
    """The last answer, worded for Prometheus."""

    def __init__(self, store: Store, world: World, every_s: float) -> None:
        self._store = store
        self._world = world
        self._every_s = every_s
        self._counts: Counts | None = None
        self._up = False
        self._again_s = float("-inf")
        self._asking = anyio.Lock()

    async def refresh(self) -> None:
        """Asked anew if the last answer is too old. A database that does not answer is a value, not an error."""
        async with self._asking:
            began_s = self._world.monotonic()
            if began_s < self._again_s:
                return
            try:
                with anyio.fail_after(PATIENCE_S):
                    now, every_s = now_ms(self._world), self._every_s
                    self._counts = await count(self._store, now_ms=now, every_s=every_s)
                self._up = True
            except (StoreUnavailable, TimeoutError) as problem:
                self._counts, self._up = None, False
                log.warning(
                    "the fleet could not be counted",
                    extra={"values": {"why": str(problem) or "no answer in time"}},
                )
            now_s = self._world.monotonic()
            self._again_s = now_s + max(KEPT_S, SHARE * (now_s - began_s))

    def collect(self) -> Iterator[Metric]:
        up = self._up and not self._store.broken
        yield GaugeMetricFamily("cloudly_database_up", "1: the database answers.", value=float(up))
        counts = self._counts
        if counts is None or not up:
            return
        yield _by_state("cloudly_nodes", "Nodes by state.", counts.nodes)
        yield _by_state("cloudly_deployments", "The newest order of each node.", counts.deployments)
        yield _by_state("cloudly_rollouts", "Rollouts by state.", counts.rollouts)
        yield GaugeMetricFamily(
            "cloudly_webhook_deliveries_waiting", "Events to be delivered.", value=counts.deliveries
        )
        age_ms = 0 if counts.oldest_ms is None else max(0, counts.at_ms - counts.oldest_ms)
        yield GaugeMetricFamily(
            "cloudly_webhook_oldest_waiting_seconds",
            "Since when the oldest of them waits; 0: none does.",
            value=age_ms / 1000,
        )


def _by_state(name: str, words: str, counts: Mapping[str, int]) -> GaugeMetricFamily:
    gauge = GaugeMetricFamily(name, words, labels=("state",))
    for state, number in sorted(counts.items()):
        gauge.add_metric((state,), number)
    return gauge
