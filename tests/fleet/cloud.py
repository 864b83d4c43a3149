"""The real Cloudly of the fleet: its application on a database file, its recurring jobs, and its operator."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from cloudly.app import create_app
from cloudly.http.recurring import Recurring
from cloudly.rollouts import orders
from cloudly.rollouts.belief import Rollout
from cloudly.rollouts.dry_run import DryRun
from cloudly.rollouts.plan import Plan
from cloudly.settings import Settings
from cloudly.store import wanted
from cloudly.store.join_tokens import NewToken
from cloudly.store.join_tokens import create as create_token
from cloudly.store.rollouts import counters, given, listing, making, story
from cloudly.store.store import FILE, Store
from cloudly.store.wanted import NewRelease
from cloudly.tokens import new_join_token
from interfaces.desired import UpdatePolicy
from interfaces.world import new_id, now_ms
from simulators.world import SimWorld
from tests.world.kit import _a_new_database

POLICY = UpdatePolicy(
    download_deadline_s=120,
    apply_deadline_s=60,
    health_soak_s=30,
    health_deadline_s=120,
    max_apply_attempts=1,
)
LOOK_S = 10.0
"""How often Cloudly's recurring jobs run. In life once a second; a fleet that checks in each hour needs it less."""
BY = "operator"


class Cloud:
    def __init__(self, root: Path, *, seed: int | str, every_s: float) -> None:
        self.home = root / "cloudly"
        self.home.mkdir()
        (self.home / FILE).write_bytes(_a_new_database())
        self.world = SimWorld(f"{seed}/cloud")
        self.store = Store.open(self.home, self.world)
        settings = Settings(data_dir=self.home, heartbeat_every_s=every_s, page=False)
        app = create_app(self.store, self.world, settings)
        self.recurring: Recurring = app.state.recurring
        for job in self.recurring.jobs:
            job.every_s = max(job.every_s, LOOK_S)
        self.transport = httpx.ASGITransport(app)

    @property
    def now_ms(self) -> int:
        return now_ms(self.world)

    # -- the operator

    def join_token(self, uses: int) -> str:
        new = NewToken(new_join_token(self.world), "fleet", uses, self.now_ms, None)
        self.store.write_now(lambda db: create_token(db, new))
        return new.token

    def release(self, version: str) -> int:
        new = NewRelease(
            commit_of(version),
            version,
            {"main": image_of(version)},
            {"main": {"io.balena.features.supervisor-api": "1"}},
        )
        return self.store.write_now(lambda db: wanted.define_release(db, new, self.now_ms))

    def create(self, plan: Plan, release: int) -> int:
        new = making.NewRollout(
            plan, release, POLICY.model_dump_json(), BY, new_id(self.world), self.now_ms
        )
        return self.store.write_now(lambda db: making.create(db, new)).number

    def dry_run(self, rollout: int) -> DryRun:
        """What `cloudly rollout dry-run` tells."""

        def ask(db: Any) -> DryRun:
            told, at = story.recall(db, rollout), self.now_ms
            salt = told.believed.salt
            return listing.tried(db, told.plan, told.release, number=rollout, salt=salt, now_ms=at)

        return self.store.read_now(ask)

    def start(self, rollout: int) -> None:
        self.store.write_now(
            lambda db: story.order(
                db, rollout, lambda was, plan: orders.start(was, plan, by=BY), now_ms=self.now_ms
            )
        )

    # -- what it says

    def live(self, rollout: int) -> Rollout:
        return self.store.read_now(lambda db: counters.live(db, story.recall(db, rollout)))

    def going_back(self, rollout: int) -> int:
        """Orders of it that need a rollback and have not ended."""
        query = "SELECT count(*) AS many FROM deployment WHERE rollout=? AND needs_rollback=1 AND closed=0"
        return int(self.rows(query, rollout)[0]["many"])

    def grants(self, rollout: int) -> dict[str, dict[str, Any]]:
        """By node."""
        rows = self.store.read_now(lambda db: given.grants(db, rollout))
        return {row["node"]: row for row in rows}

    def nodes(self) -> dict[str, int]:
        """The number in the database of each node."""
        rows = self.rows("SELECT node_id, id FROM node")
        return {row["node_id"]: row["id"] for row in rows}

    def rows(self, query: str, *values: object) -> list[dict[str, Any]]:
        return self.store.read_now(lambda db: [dict(row) for row in db.execute(query, values)])

    def chunks(self, node: int) -> Iterator[tuple[str, str, str]]:
        """Epoch, lane and events of each batch of this node's journal, in the order of the story."""
        for row in self.rows(
            "SELECT e.epoch, c.lane, c.events FROM journal_chunk c JOIN epoch e ON e.node=c.node AND e.n=c.epoch_n"
            " WHERE c.node=? ORDER BY c.epoch_n, c.lane, c.first_seq",
            node,
        ):
            yield row["epoch"], row["lane"], row["events"]


def commit_of(version: str) -> str:
    return hashlib.sha256(f"release {version}".encode()).hexdigest()[:32]


def image_of(version: str) -> str:
    digest = hashlib.sha256(f"image {version}".encode()).hexdigest()
    return f"registry.example/{commit_of(version)}@sha256:{digest}"
