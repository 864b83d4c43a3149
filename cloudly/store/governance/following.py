"""What a fleet wants of a node that enrolls into it: its pin, else the channel that it follows, else its own release.

Rules:
- Following is for new nodes. One that is there changes by a rollout or an order, never because something was published.
- A fleet follows a channel or has a release of its own, never both; the policy of its orders stays.
"""

from __future__ import annotations

from dataclasses import dataclass

from cloudly.governance.pins import Scope
from cloudly.problems import BadOrder
from cloudly.store import audit
from cloudly.store.audit import By
from cloudly.store.governance import bans, channels, pins
from cloudly.store.sql import Connection, Row
from interfaces.desired import UpdatePolicy


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a new node gets, under which policy."""

    release: int
    policy: str


def wanted_by(db: Connection, fleet: int, now_ms: int) -> Wanted | None:
    """None: the fleet wants no release."""
    row = db.execute(
        "SELECT name, release, policy, channel FROM fleet WHERE id=?", (fleet,)
    ).fetchone()
    policy = row["policy"] or UpdatePolicy().model_dump_json()
    pin = pins.of(db, Scope.FLEET, fleet, row["name"])
    if pin is not None and pin.release is not None and pin.holds(now_ms):
        return Wanted(pin.release, policy)
    if row["channel"] is not None:
        newest = channels.newest(db, row["channel"])
        return None if newest is None else Wanted(newest["release"], policy)
    return None if row["release"] is None else Wanted(row["release"], policy)


def must_take_default(db: Connection, fleet: int, release: int, now_ms: int) -> None:
    """Whether a release may be made what its new nodes get. Raises BadOrder."""
    bans.must_not_be_banned(db, release)
    name, channel = db.execute(
        "SELECT f.name, c.name FROM fleet f LEFT JOIN channel c ON c.id=f.channel WHERE f.id=?",
        (fleet,),
    ).fetchone()
    if channel is not None:
        raise BadOrder(
            f"fleet {name} follows the channel {channel}, which says what its new nodes get: order it by a rollout or"
            f" node by node, or end that with `cloudly fleet unfollow {name}`"
        )
    pin = pins.of(db, Scope.FLEET, fleet, name)
    if pin is not None and pin.holds(now_ms) and pin.release not in {None, release}:
        raise BadOrder(f"fleet {name} is pinned to {pin.version} {pin.origin}")


def follow(db: Connection, fleet: Row, channel: Row, by: By) -> None:
    """Its new nodes get what the channel offers. Raises BadOrder when it follows it already."""
    changed = db.execute(
        "UPDATE fleet SET channel=?1, release=NULL WHERE id=?2 AND channel IS DISTINCT FROM ?1",
        (channel["id"], fleet["id"]),
    ).rowcount
    if not changed:
        raise BadOrder(f"fleet {fleet['name']} follows {channel['name']} already")
    audit.note(db, by, "fleet.followed", f"fleet/{fleet['name']}", channel=channel["name"])


def unfollow(db: Connection, fleet: Row, by: By) -> None:
    """What the channel offers now stays what its new nodes get. Raises BadOrder when it follows none."""
    channel = db.execute("SELECT channel FROM fleet WHERE id=?", (fleet["id"],)).fetchone()[0]
    if channel is None:
        raise BadOrder(f"fleet {fleet['name']} follows no channel")
    newest = channels.newest(db, channel)
    db.execute(
        "UPDATE fleet SET channel=NULL, release=?, policy=coalesce(policy, ?) WHERE id=?",
        (newest and newest["release"], UpdatePolicy().model_dump_json(), fleet["id"]),
    )
    audit.note(db, by, "fleet.unfollowed", f"fleet/{fleet['name']}")
