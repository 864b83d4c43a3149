"""Join tokens as the operator handles them: made once, shown once, revoked at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cloudly import labels
from cloudly.problems import NoSuch
from cloudly.store import audit
from cloudly.store.audit import By
from cloudly.store.sql import Connection, Row
from cloudly.tokens import fingerprint


@dataclass(frozen=True, slots=True)
class NewToken:
    token: str
    name: str
    uses: int
    now_ms: int
    expires_at_ms: int | None
    fleet: int = 1
    """Into which its nodes come."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """With which its nodes come."""


def create(db: Connection, new: NewToken, *, by: By | None = None) -> int:
    """Its number; of the token only the hash is kept."""
    row = db.execute(
        "INSERT INTO join_token(hash, name, uses, uses_left, created_at_ms, expires_at_ms, fleet, labels)"
        " VALUES(?1,?2,?3,?3,?4,?5,?6,?7) RETURNING id",
        (
            fingerprint(new.token),
            new.name,
            new.uses,
            new.now_ms,
            new.expires_at_ms,
            new.fleet,
            labels.dump(new.labels),
        ),
    ).fetchone()
    fleet = db.execute("SELECT name FROM fleet WHERE id=?", (new.fleet,)).fetchone()
    audit.note(
        db, by, "join_token.created", f"join-token/{row[0]}", name=new.name, uses=new.uses,
        expires_at_ms=new.expires_at_ms, fleet=fleet and fleet[0], labels=dict(new.labels),
    )  # fmt: skip
    return int(row[0])


TOKENS = (
    "SELECT t.id, t.name, (SELECT f.name FROM fleet f WHERE f.id=t.fleet) fleet,"
    " t.uses, t.uses_left, t.created_at_ms, t.expires_at_ms, t.revoked_at_ms, t.labels,"
    " (SELECT group_concat(n.node_id, ' ') FROM join_use u JOIN node n ON n.id=u.node WHERE u.token=t.id) nodes"
    " FROM join_token t"
)


def listed(db: Connection) -> list[Row]:
    return db.execute(f"{TOKENS} ORDER BY t.id DESC").fetchall()


def one(db: Connection, token: int) -> Row:
    """Raises BadOrder when there is no such token."""
    row: Row | None = db.execute(f"{TOKENS} WHERE t.id=?", (token,)).fetchone()
    if row is None:
        raise _unknown(token)
    return row


USES = (
    "SELECT u.node, n.node_id, n.hostname, u.at_ms,"
    " CASE WHEN u.secret_hash IS NOT NULL THEN coalesce(u.agent_at_ms, u.at_ms) END agent_at_ms,"
    " CASE WHEN u.device_key_hash IS NOT NULL THEN coalesce(u.supervisor_at_ms, u.at_ms) END supervisor_at_ms"
    " FROM join_use u JOIN node n ON n.id=u.node WHERE u.token=?"
)


def uses(db: Connection, token: int) -> list[Row]:
    """Who used it, when: a row for each node, with a time for each half of it that came, the first to come first.

    A half that came before these times were kept has the time of the first of both.
    """
    return db.execute(f"{USES} ORDER BY u.at_ms, n.id", (token,)).fetchall()


def uses_by_node(db: Connection, token: int, *, after: int | None, limit: int) -> list[Row]:
    """The same a page at a time, the longest known node first; `after`: only those after that one."""
    return db.execute(
        f"{USES} AND u.node>? ORDER BY u.node LIMIT ?", (token, after or 0, limit)
    ).fetchall()


def revoke(db: Connection, token: int, now_ms: int, *, by: By | None = None) -> None:
    """From now on it admits nobody; once more changes nothing. Raises NoSuch when there is no such token."""
    done = db.execute(
        "UPDATE join_token SET revoked_at_ms=? WHERE id=? AND revoked_at_ms IS NULL",
        (now_ms, token),
    )
    if done.rowcount:
        audit.note(db, by, "join_token.revoked", f"join-token/{token}")
    elif db.execute("SELECT 1 FROM join_token WHERE id=?", (token,)).fetchone() is None:
        raise _unknown(token)


def _unknown(token: int) -> NoSuch:
    return NoSuch("join token", f"there is no join token {token}: `cloudly token list` shows them")


def find(db: Connection, token: str) -> Row | None:
    """What is known of that token: id, fleet, uses_left, expires_at_ms, revoked_at_ms; None: it is none of ours."""
    row: Row | None = db.execute(
        "SELECT id, fleet, uses_left, expires_at_ms, revoked_at_ms FROM join_token WHERE hash=?",
        (fingerprint(token),),
    ).fetchone()
    return row
