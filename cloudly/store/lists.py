"""Lists a page at a time, by key: what the API shows of many things, each of its tables read by an index only.

`after` is the key of the last one on the page before; each list has an index that begins there.
"""

from __future__ import annotations

import json
from typing import Any

from cloudly.problems import NoSuch
from cloudly.store.governance.following import wanted_by
from cloudly.store.releases import named
from cloudly.store.sql import Connection, Row

LAST = 2**62


FLEETS = (
    "SELECT f.id, f.name, f.created_at_ms, r.version, r.commit_id,"
    " (SELECT c.name FROM channel c WHERE c.id=f.channel) channel,"
    " (SELECT count(*) FROM pin p WHERE p.scope='fleet' AND p.scope_id=f.id) pins,"
    " (SELECT count(*) FROM node n WHERE n.fleet=f.id) nodes"  # by an index: 1 ms for 10,000
    " FROM fleet f LEFT JOIN release r ON r.id=f.release"
)


def fleets(db: Connection, *, after: int | None, limit: int, now_ms: int) -> list[dict[str, Any]]:
    """The oldest first, with how many nodes are in each, and what its new nodes get."""
    rows = db.execute(f"{FLEETS} WHERE f.id>? ORDER BY f.id LIMIT ?", (after or 0, limit))
    return [_wanting(db, row, now_ms) for row in rows.fetchall()]


def fleet(db: Connection, name: str, *, now_ms: int) -> dict[str, Any]:
    """Raises NoSuch."""
    row: Row | None = db.execute(f"{FLEETS} WHERE f.name=?", (name,)).fetchone()
    if row is None:
        raise NoSuch("fleet", f"there is no fleet {name!r}")
    return _wanting(db, row, now_ms)


def _wanting(db: Connection, row: Row, now_ms: int) -> dict[str, Any]:
    """Where a channel or a pin may say what new nodes get, that is asked."""
    fleet = dict(row)
    if fleet["channel"] is None and not fleet["pins"]:
        return fleet
    wants = wanted_by(db, fleet["id"], now_ms)
    none: dict[str, Any] = {"version": None, "commit_id": None}
    return fleet | (none if wants is None else named(db, wants.release))


def join_tokens(db: Connection, *, after: int | None, limit: int) -> list[Row]:
    """The newest first."""
    return db.execute(
        "SELECT t.id, t.name, f.name fleet, t.uses, t.uses_left, t.created_at_ms, t.expires_at_ms, t.revoked_at_ms,"
        " t.labels FROM join_token t JOIN fleet f ON f.id=t.fleet WHERE t.id<? ORDER BY t.id DESC LIMIT ?",
        (LAST if after is None else after, limit),
    ).fetchall()


def join_token(db: Connection, number: int) -> Row | None:
    rows = join_tokens(db, after=number + 1, limit=1)
    return rows[0] if rows and rows[0]["id"] == number else None


def releases(db: Connection, *, after: int | None, limit: int) -> list[dict[str, Any]]:
    """The newest first, with the image of each service."""
    rows = db.execute(
        "SELECT r.id, r.commit_id, r.version, r.created_at_ms, r.compose IS NOT NULL composed,"
        " (SELECT json_group_object(s.name, i.image) FROM release_service i JOIN service s ON s.id=i.service"
        "  WHERE i.release=r.id) images"
        " FROM release r WHERE r.id<? ORDER BY r.id DESC LIMIT ?",
        (LAST if after is None else after, limit),
    )
    return [{**dict(row), "images": json.loads(row["images"] or "{}")} for row in rows]


def transitions(
    db: Connection, node: int, *, before: tuple[int, int] | None, limit: int
) -> list[Row]:
    """A node's, the newest first; `before`: only those older than that epoch and place."""
    return db.execute(
        "SELECT epoch_n, n, seq, at_ms, received_at_ms, stream, kind, src, dst, reason FROM transition"
        " WHERE node=? AND (epoch_n, n)<(?,?) ORDER BY epoch_n DESC, n DESC LIMIT ?",
        (node, *(before or (LAST, LAST)), limit),
    ).fetchall()


def presence(db: Connection, *, above: int, upto: int, late_ms: int, offline_ms: int) -> Row:
    """Of the nodes with these ids: how many there are, are revoked, need an operator, and were seen when."""
    row: Row = db.execute(
        "SELECT count(*) nodes,"
        " coalesce(sum(CASE WHEN n.revoked_at_ms IS NOT NULL THEN 1 ELSE 0 END), 0) revoked,"
        " coalesce(sum(CASE WHEN n.needs_operator IS NOT NULL OR f.alarm=1 THEN 1 ELSE 0 END), 0) needs_operator,"
        " coalesce(sum(CASE WHEN l.node IS NULL THEN 1 ELSE 0 END), 0) never_seen,"
        " coalesce(sum(CASE WHEN l.last_seen_at_ms>=?3 THEN 1 ELSE 0 END), 0) online,"
        " coalesce(sum(CASE WHEN l.last_seen_at_ms<?3 AND l.last_seen_at_ms>=?4 THEN 1 ELSE 0 END), 0) late,"
        " coalesce(sum(CASE WHEN l.last_seen_at_ms<?4 THEN 1 ELSE 0 END), 0) offline"
        " FROM node n LEFT JOIN node_live l ON l.node=n.id LEFT JOIN fence f ON f.node=n.id"
        " WHERE n.id>?1 AND n.id<=?2",
        (above, upto, late_ms, offline_ms),
    ).fetchone()
    return row


def highest_node(db: Connection) -> int:
    return int(db.execute("SELECT max(id) FROM node").fetchone()[0] or 0)
