"""Nodes: who is behind a credential, what its heartbeat leaves, and which epoch its journal is in."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from sqlite3 import Connection

from cloudly.problems import Refused
from cloudly.store import wanted
from cloudly.tokens import fingerprint


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is behind a node token, and what the last heartbeat left."""

    node: int
    node_id: str
    token_hash: bytes
    still_open: bool
    stable_hash: bytes | None
    deployment: str | None
    generation: int


@dataclass(frozen=True, slots=True)
class Beat:
    """What a heartbeat wants written."""

    caller: Caller
    at_ms: int
    agent_version: str
    observed_generation: int
    stable_hash: bytes
    reported: str


def authenticate(db: Connection, token_hash: bytes) -> Caller:
    """Whose node token this is. Raises Refused (node-unknown, node-revoked)."""
    row = db.execute(
        "SELECT n.id, n.node_id, n.revoked_at_ms, c.still_open, l.stable_hash, d.deployment,"
        " coalesce(d.generation, 0)"
        " FROM credential c JOIN node n ON n.id=c.node LEFT JOIN node_live l ON l.node=c.node"
        " LEFT JOIN desired d ON d.node=c.node WHERE c.token_hash=?",
        (token_hash,),
    ).fetchone()
    if row is None:
        raise Refused("node-unknown")
    if row[2] is not None:
        raise Refused("node-revoked")
    return Caller(row[0], row[1], token_hash, bool(row[3]), row[4], row[5], row[6])


def authenticate_device(db: Connection, key: str) -> tuple[int, str]:
    """Device id and uuid behind a Supervisor's key. Raises Refused."""
    row = db.execute(
        "SELECT n.id, n.node_id, n.revoked_at_ms FROM device d JOIN node n ON n.id=d.node"
        " WHERE d.key_hash=?",
        (fingerprint(key),),
    ).fetchone()
    if row is None:
        raise Refused("node-unknown")
    if row[2] is not None:
        raise Refused("node-revoked")
    return int(row[0]), str(row[1])


def beat(db: Connection, heartbeat: Beat) -> None:
    """A heartbeat that changed something, or the first, which closes the enrollment. Raises Refused."""
    caller = heartbeat.caller
    closed = db.execute(
        "UPDATE credential SET still_open=0 WHERE node=? AND token_hash=?",
        (caller.node, caller.token_hash),
    )
    if closed.rowcount == 0:
        raise Refused("node-unknown")  # replaced since it was looked up
    db.execute(
        "UPDATE node SET agent_version=?2 WHERE id=?1 AND agent_version<>?2",
        (caller.node, heartbeat.agent_version),
    )
    db.execute(
        "INSERT INTO node_live(node, last_seen_at_ms, observed_generation, stable_hash)"
        " VALUES(?,?,?,?) ON CONFLICT(node) DO UPDATE SET last_seen_at_ms=excluded.last_seen_at_ms,"
        " observed_generation=excluded.observed_generation, stable_hash=excluded.stable_hash",
        (caller.node, heartbeat.at_ms, heartbeat.observed_generation, heartbeat.stable_hash),
    )
    db.execute(
        "INSERT INTO node_status(node, reported) VALUES(?,?)"
        " ON CONFLICT(node) DO UPDATE SET reported=excluded.reported",
        (caller.node, heartbeat.reported),
    )


def save_presence(db: Connection, seen: dict[int, tuple[int, str]]) -> None:
    """Last seen and the volatile values of many nodes, kept in memory since the last time."""
    db.executemany(
        "UPDATE node_live SET last_seen_at_ms=max(last_seen_at_ms, ?) WHERE node=?",
        [(at_ms, node) for node, (at_ms, _) in seen.items()],
    )
    db.executemany(
        "UPDATE node_status SET reported=? WHERE node=?",
        [(reported, node) for node, (_, reported) in seen.items()],
    )


def save_device_report(db: Connection, node: int, report: str, at_ms: int) -> None:
    db.execute("UPDATE device SET report=?, report_at_ms=? WHERE node=?", (report, at_ms, node))


def begin_epoch(
    db: Connection, node: int, epoch: str, *, now_ms: int, deployment: str | None = None
) -> int:
    """The number of this epoch among the node's; a new one is its current one. Raises Refused (fenced).

    With a `deployment` id the new epoch is a reflash, and the node's release is ordered again.
    """
    newest = db.execute("SELECT max(n) FROM epoch WHERE node=?", (node,)).fetchone()[0] or 0
    known = db.execute("SELECT n FROM epoch WHERE node=? AND epoch=?", (node, epoch)).fetchone()
    if known is not None:
        if known[0] < newest:
            raise Refused("fenced")
        return int(known[0])
    db.execute(
        "INSERT INTO epoch(node, n, epoch, began_at_ms) VALUES(?,?,?,?)",
        (node, newest + 1, epoch, now_ms),
    )
    if newest and deployment is not None:
        wanted.order_again(db, node, deployment=deployment, now_ms=now_ms)
    return int(newest + 1)


def stable_hash(agent_version: str, stable: bytes) -> bytes:
    """Of the part of a report that is worth a write when it changes."""
    return hashlib.sha256(agent_version.encode() + b"\0" + stable).digest()[:16]
