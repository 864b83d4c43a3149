"""A new rollout: its row and its first fact, in one transaction."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ValidationError

from cloudly.rollouts import orders
from cloudly.rollouts.plan import Plan
from cloudly.store.governance.bans import must_not_be_banned
from cloudly.store.releases import untellable
from cloudly.store.rollouts.story import Story, append, recall
from cloudly.store.sql import Connection
from cloudly.store.targets import app_target


@dataclass(frozen=True, slots=True)
class NewRollout:
    """What an operator asks for. `release`: its row's id; `policy`: of its deployments, as JSON."""

    plan: Plan
    release: int
    policy: str
    by: str
    salt: str
    now_ms: int


def create(db: Connection, new: NewRollout) -> Story:
    """A draft. Raises BadOrder when no node could be told the release, or it is banned; nothing is written then."""
    commit, version = db.execute(
        "SELECT commit_id, version FROM release WHERE id=?", (new.release,)
    ).fetchone()
    must_not_be_banned(db, new.release)
    try:
        app_target(db, new.release, new.policy, "any", None)
    except ValidationError as problem:
        raise untellable(problem) from None
    row = db.execute(
        "INSERT INTO rollout(release, plan, policy, state, seq, hash, created_at_ms, is_open)"
        " VALUES(?,?,?,'new',0,?,?,1) RETURNING id",
        (new.release, new.plan.text(), new.policy, b"", new.now_ms),
    ).fetchone()
    number = int(row[0])
    created = orders.create(
        new.plan, rollout=str(number), release=commit, version=version, salt=new.salt, by=new.by
    )
    return append(db, recall(db, number), created, now_ms=new.now_ms)
