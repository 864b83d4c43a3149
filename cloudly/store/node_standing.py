"""How a node stands with its operator: let in, in quarantine, revoked, or retired.

Rules:
- In quarantine it keeps its credentials, and its journal is taken; its desired state stays as it is, and it gets no new
  order but one that an operator forces. What is under way there may end, also by the rollback that Cloudly owes it.
- Revoked and retired nodes are refused, their agent and their Supervisor. A retired one is in no list and no count that
  does not ask for it; its story is kept.
- What was refused comes back when an operator readmits it, or lets it in with a fresh join token. It is in quarantine
  still, if it was.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from cloudly.problems import BadOrder
from cloudly.store import audit, outbox
from cloudly.store.audit import By
from cloudly.store.sql import Connection, Row
from cloudly.views import word_of
from interfaces.why import when

MOST = 500
"""Characters of a reason."""


@dataclass(frozen=True, slots=True)
class Word:
    """An operator's word on a node."""

    by: str
    reason: str
    at_ms: int

    def document(self) -> str:
        return json.dumps({"by": self.by, "reason": self.reason}, ensure_ascii=False)


def quarantine(db: Connection, node: int, word: Word) -> None:
    """Raises BadOrder when it is in quarantine already: the first reason stays."""
    row = _row(db, node)
    if row["quarantined_at_ms"] is not None:
        raise BadOrder(
            f"it is in quarantine since {when(row['quarantined_at_ms'])}: {word_of(row['quarantine'])}"
        )
    _must_have_a_reason(word)
    db.execute(
        "UPDATE node SET quarantined_at_ms=?, quarantine=? WHERE id=?",
        (word.at_ms, word.document(), node),
    )
    _told(db, "node.quarantined", node, word)


def lift_quarantine(db: Connection, node: int, *, by: By | None = None) -> None:
    """Raises BadOrder when it is in none."""
    if _row(db, node)["quarantined_at_ms"] is None:
        raise BadOrder("it is in no quarantine")
    db.execute("UPDATE node SET quarantined_at_ms=NULL, quarantine=NULL WHERE id=?", (node,))
    audit.note_of_node(db, by, "node.quarantine_lifted", node)


def revoke(db: Connection, node: int, now_ms: int, *, by: By | None = None) -> None:
    """Its credentials are refused from now on; once more changes nothing."""
    done = db.execute(
        "UPDATE node SET revoked_at_ms=? WHERE id=? AND revoked_at_ms IS NULL", (now_ms, node)
    )
    if done.rowcount:
        audit.keep(db, by, "node.revoked", audit.of_node(db, node))
        outbox.tell_of_node(db, "node.revoked", node, {"by": by.person} if by else {}, now_ms)


def retire(db: Connection, node: int, word: Word) -> None:
    """Raises BadOrder when it is retired already."""
    row = _row(db, node)
    if row["retired_at_ms"] is not None:
        raise BadOrder(
            f"it is retired since {when(row['retired_at_ms'])}: {word_of(row['retirement'])}"
        )
    _must_have_a_reason(word)
    db.execute(
        "UPDATE node SET retired_at_ms=?, retirement=? WHERE id=?",
        (word.at_ms, word.document(), node),
    )
    _told(db, "node.retired", node, word)


def _told(db: Connection, act: str, node: int, word: Word) -> None:
    """In the audit, and to webhooks with what they are told of a node."""
    by, about = By(word.by, word.at_ms), audit.of_node(db, node)
    audit.keep(db, by, act, about, reason=word.reason)
    outbox.tell_of_node(db, act, node, {"by": word.by, "why": word.reason}, word.at_ms)


def readmit(db: Connection, node: int, *, by: By | None = None) -> None:
    """Its credentials are taken again. Raises BadOrder when they are."""
    row = _row(db, node)
    if row["revoked_at_ms"] is None and row["retired_at_ms"] is None:
        raise BadOrder("it is neither revoked nor retired")
    db.execute(
        "UPDATE node SET revoked_at_ms=NULL, retired_at_ms=NULL, retirement=NULL WHERE id=?",
        (node,),
    )
    audit.note_of_node(db, by, "node.readmitted", node)


def is_quarantined(db: Connection, node: int) -> bool:
    return _row(db, node)["quarantined_at_ms"] is not None


def must_take_orders(db: Connection, node: int, *, force: bool = False) -> None:
    """Raises BadOrder for a node that gets no new order. `force`: also in quarantine."""
    row = _row(db, node)
    if row["retired_at_ms"] is not None:
        raise BadOrder("it is retired: `cloudly node readmit` brings it back")
    if row["quarantined_at_ms"] is not None and not force:
        raise BadOrder(
            f"it is in quarantine: {word_of(row['quarantine'])};"
            " to give it an order nevertheless, say --force"
        )


def _row(db: Connection, node: int) -> Row:
    row: Row = db.execute(
        "SELECT revoked_at_ms, quarantined_at_ms, quarantine, retired_at_ms, retirement"
        " FROM node WHERE id=?",
        (node,),
    ).fetchone()
    return row


def _must_have_a_reason(word: Word) -> None:
    if not word.reason.strip():
        raise BadOrder("a reason is missing: somebody will ask for it")
    if len(word.reason) > MOST or len(word.by) > MOST:
        raise BadOrder(f"a reason, and a name, are at most {MOST} characters")
