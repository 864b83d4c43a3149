"""Nodes: who is behind a credential, and what its heartbeat leaves."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from cloudly.problems import Refused
from cloudly.rotation import TokenAge
from cloudly.store import heads, voices
from cloudly.store.heads import Heads
from cloudly.store.sql import Connection, Row
from cloudly.tokens import fingerprint
from cloudly.voices import Standing, Voice

REPLACED = "This node token is of before: its node has enrolled anew since, or drew another when Cloudly asked for one."
CALLER = (
    "SELECT n.id, n.node_id, coalesce(n.revoked_at_ms, n.retired_at_ms), c.token_hash, c.still_open, l.stable_hash,"
    " d.deployment, coalesce(d.generation, 0), v.epoch, v.writer,"
    " (SELECT q.id FROM diagnosis q WHERE q.node=n.id AND q.answered_at_ms IS NULL"
    "  ORDER BY q.asked_at_ms DESC, q.id LIMIT 1),"
    " c.generation, coalesce(c.rotated_at_ms, c.enrolled_at_ms), c.rotate_asked_at_ms"
    " FROM credential c JOIN node n ON n.id=c.node LEFT JOIN node_live l ON l.node=c.node"
    " LEFT JOIN desired d ON d.node=c.node LEFT JOIN voice v ON v.node=c.node"
)


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
    epoch: str | None
    writer: str | None
    """Whose turn it is to speak as this node."""
    diagnosis: str | None
    """The newest that an operator asked for, while it is not answered."""
    token: TokenAge
    is_following: bool = False
    """The node token that it announced, and did not use before."""


@dataclass(frozen=True, slots=True)
class Beat:
    """What a heartbeat wants written."""

    caller: Caller
    voice: Voice | None
    """None: its journal cannot be opened, so nobody knows which device it is."""
    heads: Heads | None
    at_ms: int
    agent_version: str
    observed_generation: int
    stable_hash: bytes
    reported: str

    @property
    def is_news(self) -> bool:
        """Whether anything of it is worth a write now."""
        caller, voice = self.caller, self.voice
        other = voice is not None and (
            voice.epoch != caller.epoch or voice.writer not in {None, caller.writer}
        )
        return caller.still_open or caller.stable_hash != self.stable_hash or other


def authenticate(db: Connection, token_hash: bytes) -> Caller:
    """Whose node token this is. Raises Refused (node-unknown, node-revoked, fenced)."""
    row = (
        db.execute(f"{CALLER} WHERE c.token_hash=?", (token_hash,)).fetchone()
        or db.execute(f"{CALLER} WHERE c.next_hash=?", (token_hash,)).fetchone()
    )
    if row is None:
        former = db.execute("SELECT 1 FROM former_token WHERE hash=?", (token_hash,)).fetchone()
        raise Refused("fenced" if former else "node-unknown", REPLACED if former else "")
    if row[2] is not None:
        raise Refused("node-revoked")
    return _caller(row, token_hash)


def callers(db: Connection, token_hashes: Sequence[bytes]) -> dict[bytes, Caller]:
    """Who is behind many node tokens where nothing speaks against it; `authenticate` says what does. PostgreSQL."""
    rows = db.execute(
        f"{CALLER} WHERE c.token_hash=ANY(?::bytea[]) AND n.revoked_at_ms IS NULL AND n.retired_at_ms IS NULL",
        (token_hashes,),
    )
    return {bytes(row[3]): _caller(row, bytes(row[3])) for row in rows}


def _caller(row: Row, token_hash: bytes) -> Caller:
    return Caller(
        node=row[0],
        node_id=row[1],
        token_hash=token_hash,
        still_open=bool(row[4]),
        stable_hash=row[5],
        deployment=row[6],
        generation=row[7],
        epoch=row[8],
        writer=row[9],
        diagnosis=row[10],
        token=TokenAge(*row[11:]),
        is_following=bytes(row[3]) != token_hash,
    )


def authenticate_device(db: Connection, key: str) -> tuple[int, str]:
    """Device id and uuid behind a Supervisor's key. Raises Refused."""
    row = db.execute(
        "SELECT n.id, n.node_id, coalesce(n.revoked_at_ms, n.retired_at_ms) FROM device d JOIN node n ON n.id=d.node"
        " WHERE d.key_hash=?",
        (fingerprint(key),),
    ).fetchone()
    if row is None:
        raise Refused("node-unknown")
    if row[2] is not None:
        raise Refused("node-revoked")
    return int(row[0]), str(row[1])


def last(db: Connection, node: int, kept: voices.Last | None = None) -> voices.Last:
    """The last heartbeat that was taken: the one that this server kept, or one that was written since."""
    row = db.execute(
        "SELECT l.last_seen_at_ms, s.reported FROM node_live l JOIN node_status s ON s.node=l.node WHERE l.node=?",
        (node,),
    ).fetchone()
    written = voices.Last() if row is None else voices.Last(row[0], row[1])
    return written if kept is None or written.at_ms > kept.at_ms else kept


def beat(db: Connection, heartbeat: Beat, *, before: voices.Last | None) -> Standing:
    """A heartbeat that changed something, or the first, which closes the enrollment. Raises Refused.

    Nothing is taken from one that is fenced or late. `before`: the last one that this server kept in memory.
    """
    caller, voice = heartbeat.caller, heartbeat.voice
    _still_valid(db, caller)
    if voice is not None:
        latest = partial(last, db, caller.node, before)
        heard, number = voices.hear(db, caller.node, voice, now_ms=heartbeat.at_ms, last=latest)
        if heard in {Standing.FENCED, Standing.LATE}:
            return heard
        if heartbeat.heads is not None and heard is not Standing.BEHIND:
            heads.save(db, caller.node, number, heartbeat.heads)
    _take(db, heartbeat)
    return Standing.PRESENT


def _still_valid(db: Connection, caller: Caller) -> None:
    row = db.execute(
        "SELECT 1 FROM credential WHERE node=? AND token_hash=?", (caller.node, caller.token_hash)
    ).fetchone()
    if row is None:
        raise Refused("node-unknown")  # replaced since it was looked up


def _take(db: Connection, heartbeat: Beat) -> None:
    caller = heartbeat.caller
    db.execute("UPDATE credential SET still_open=0 WHERE node=? AND still_open=1", (caller.node,))
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


def save_presence(db: Connection, seen: Mapping[int, tuple[int, str]]) -> None:
    """Last seen and the volatile values of many nodes, where no server has written something newer."""
    inorder = sorted(seen.items())
    db.executemany(
        "UPDATE node_status SET reported=?1 WHERE node=?2 AND EXISTS (SELECT 1 FROM node_live l"
        " WHERE l.node=?2 AND l.last_seen_at_ms<?3)",
        [(reported, node, at_ms) for node, (at_ms, reported) in inorder],
    )
    db.executemany(
        "UPDATE node_live SET last_seen_at_ms=?1 WHERE node=?2 AND last_seen_at_ms<?1",
        [(at_ms, node) for node, (at_ms, _) in inorder],
    )


def stable_hash(agent_version: str, stable: bytes) -> bytes:
    """Of the part of a report that is worth a write when it changes."""
    return hashlib.sha256(agent_version.encode() + b"\0" + stable).digest()[:16]
