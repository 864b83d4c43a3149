"""Diagnoses that operators ask of nodes: asked here, told to the node in its heartbeats, answered by its journal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cloudly.problems import BadOrder
from cloudly.store import audit
from cloudly.store.audit import By
from cloudly.store.sql import Connection, Row

MACHINE = "diagnosis/"
"""Streams of this machine answer diagnoses."""
MOST_WAITING = 3
KEPT = 20
"""Per node; all of them stay in its journal."""
GIVEN_UP_MS = 86_400_000
"""After a day without an answer it makes room for another."""


def ask(db: Connection, node: int, diagnosis: str, *, now_ms: int, by: By | None = None) -> None:
    """Raises BadOrder when enough are waiting already."""
    db.execute(
        "DELETE FROM diagnosis WHERE node=? AND answered_at_ms IS NULL AND asked_at_ms<?",
        (node, now_ms - GIVEN_UP_MS),
    )
    waiting = db.execute(
        "SELECT count(*) FROM diagnosis WHERE node=? AND answered_at_ms IS NULL", (node,)
    ).fetchone()[0]
    if waiting >= MOST_WAITING:
        raise BadOrder(
            f"{waiting} diagnoses wait for an answer already: is the node online? `cloudly node show` tells"
        )
    db.execute(
        "INSERT INTO diagnosis(id, node, asked_at_ms) VALUES(?,?,?)", (diagnosis, node, now_ms)
    )
    db.execute(
        "DELETE FROM diagnosis WHERE node=?1 AND id NOT IN"
        " (SELECT id FROM diagnosis WHERE node=?1 ORDER BY asked_at_ms DESC, id LIMIT ?2)",
        (node, KEPT),
    )
    audit.note_of_node(db, by, "node.diagnosis_asked", node, diagnosis=diagnosis)


def answer(db: Connection, node: int, values: Mapping[str, Any], *, now_ms: int) -> None:
    """What a fact of a diagnosis says, if it is its outcome; the first answer stays."""
    diagnosis, findings = values.get("diagnosis"), values.get("findings")
    if isinstance(findings, list) and isinstance(diagnosis, str):
        db.execute(
            "UPDATE diagnosis SET answered_at_ms=?, answer=? WHERE id=? AND node=? AND answered_at_ms IS NULL",
            (now_ms, json.dumps({"findings": findings}), diagnosis, node),
        )


def newest(db: Connection, node: int, *, limit: int = 5) -> list[Row]:
    """The newest first."""
    return db.execute(
        "SELECT id, asked_at_ms, answered_at_ms, answer FROM diagnosis WHERE node=?"
        " ORDER BY asked_at_ms DESC, id LIMIT ?",
        (node, limit),
    ).fetchall()
