"""Node tokens that follow one another, in the database: asked for, announced, taken with their first use.

Rules (docs/adr/0016):
- Of a token that was announced only its hash is kept; the last one announced counts, for a device whose disk lost the
  one before draws another.
- What was once a node token, or was announced and never used when its node enrolled anew, never becomes one again.
- A device that rotates has its token: its enrollment is closed.
"""

from __future__ import annotations

from collections.abc import Iterable

from cloudly.problems import Refused
from cloudly.store.sql import Connection


def ask(db: Connection, nodes: Iterable[int], *, now_ms: int) -> int:
    """An operator wants other node tokens there. Returns how many nodes were not asked yet."""
    return sum(
        db.execute(
            "UPDATE credential SET rotate_asked_at_ms=? WHERE node=? AND rotate_asked_at_ms IS NULL",
            (now_ms, node),
        ).rowcount
        for node in nodes
    )


def may_rotate(
    db: Connection, fleet: int | None, *, after: int = 0, limit: int = 2**62
) -> list[int]:
    """Nodes with a node token that is taken, of that fleet or of each, in order; those after that one."""
    return [
        row[0]
        for row in db.execute(
            "SELECT n.id FROM credential c JOIN node n ON n.id=c.node WHERE n.revoked_at_ms IS NULL"
            " AND n.retired_at_ms IS NULL AND n.fleet=coalesce(CAST(? AS BIGINT), n.fleet) AND n.id>?"
            " ORDER BY n.id LIMIT ?",
            (fleet, after, limit),
        ).fetchall()
    ]


def announce(db: Connection, node: int, *, presented: bytes, following: bytes) -> int:
    """Keep the hash of the token that is to follow the presented one; which generation it will be.

    Raises Refused; then the tokens stay as they were.
    """
    row = db.execute(
        "SELECT token_hash, next_hash, generation FROM credential WHERE node=?", (node,)
    ).fetchone()
    if row is None or presented != row[0]:
        raise Refused("node-unknown", "It was replaced while this was under way.")
    if following == row[0]:
        return int(row[2])
    if following != row[1]:
        _must_be_new(db, node, following)
        db.execute(
            "UPDATE credential SET next_hash=?, still_open=0 WHERE node=?", (following, node)
        )
    return int(row[2]) + 1


def _must_be_new(db: Connection, node: int, following: bytes) -> None:
    known = db.execute(
        "SELECT 1 FROM former_token WHERE hash=?1"
        " UNION ALL SELECT 1 FROM credential WHERE (token_hash=?1 OR next_hash=?1) AND node<>?2",
        (following, node),
    ).fetchone()
    if known is not None:
        raise Refused("malformed", "This node token was used before: draw a fresh one.")


def take(db: Connection, node: int, following: bytes, *, now_ms: int) -> None:
    """The announced token was used: it is the node token now, and the one before is refused from now on."""
    row = db.execute(
        "SELECT token_hash FROM credential WHERE node=? AND next_hash=?", (node, following)
    ).fetchone()
    if row is None:
        return  # another request was first
    forget(db, bytes(row[0]), node)
    db.execute(
        "UPDATE credential SET token_hash=next_hash, next_hash=NULL, generation=generation+1,"
        " rotated_at_ms=?, rotate_asked_at_ms=NULL, still_open=0 WHERE node=?",
        (now_ms, node),
    )


def forget(db: Connection, token_hash: bytes, node: int) -> None:
    """It is this node's token no more: who still comes with it is told so."""
    db.execute(
        "INSERT INTO former_token(hash, node) VALUES(?,?) ON CONFLICT DO NOTHING",
        (token_hash, node),
    )
