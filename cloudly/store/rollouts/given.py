"""Who was given the order by a rollout, and what became of it: for people. Reads only.

Rules:
- All of it grows with the fleet: who serves devices beside it asks for so many nodes at a time (`..._between`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from cloudly.rollouts.counts import BAD
from cloudly.store.sql import Connection, Row

MOST_REASONS = 20
LAST = 2**62


def failures(db: Connection, number: int) -> list[dict[str, Any]]:
    """What went wrong, the most frequent first, with one node of each as an example."""
    return most_frequent(failures_between(db, number, above=0, upto=LAST))


def failures_between(
    db: Connection, number: int, *, above: int, upto: int
) -> list[tuple[str, str, int, str]]:
    """Of the nodes with these ids: outcome, reason, how many nodes, and one of them."""
    bad = ", ".join(f"'{outcome}'" for outcome in BAD)
    rows = db.execute(
        "SELECT g.outcome, g.reason, count(*), min(n.node_id) FROM rollout_grant g"  # noqa: S608 - ours
        f" JOIN node n ON n.id=g.node WHERE g.rollout=? AND g.node>? AND g.node<=? AND g.outcome IN ({bad})"
        " GROUP BY g.outcome, g.reason",
        (number, above, upto),
    ).fetchall()
    return [(row[0], row[1], row[2], row[3]) for row in rows]


def most_frequent(found: Iterable[tuple[str, str, int, str]]) -> list[dict[str, Any]]:
    """Of what several walks have found, the first `MOST_REASONS`."""
    many: Counter[tuple[str, str]] = Counter()
    example: dict[tuple[str, str], str] = {}
    for outcome, reason, nodes, node in found:
        many[outcome, reason] += nodes
        example[outcome, reason] = min(node, example.get((outcome, reason), node))
    first = sorted(many.items(), key=lambda each: (-each[1], each[0]))[:MOST_REASONS]
    return [
        {"outcome": what[0], "reason": what[1], "nodes": nodes, "example": example[what]}
        for what, nodes in first
    ]


def grants(db: Connection, number: int) -> list[dict[str, Any]]:
    """Every node that was given the order, and what became of it."""
    rows = db.execute(f"{_GRANTS} WHERE g.rollout=? ORDER BY g.at_ms, g.node", (number,)).fetchall()
    return [_plain(row) for row in rows]


def grants_between(  # noqa: PLR0913 - of which rollout, which nodes, and how many
    db: Connection, number: int, *, above: int, upto: int, outcome: str | None, limit: int
) -> list[tuple[int, dict[str, Any]]]:
    """By number, the nodes with these numbers that were given the order; `outcome` empty: those in flight."""
    wanted = "" if outcome is None else " AND coalesce(g.outcome, '')=?"
    words = () if outcome is None else (outcome,)
    rows = db.execute(
        f"{_GRANTS} WHERE g.rollout=? AND g.node>? AND g.node<=?{wanted} ORDER BY g.node LIMIT ?",
        (number, above, upto, *words, limit),
    ).fetchall()
    return [(row["number"], _plain(row)) for row in rows]


def _plain(row: Row) -> dict[str, Any]:
    return {name: value for name, value in dict(row).items() if name != "number"}


_GRANTS = (
    "SELECT n.node_id AS node, n.hostname, g.phase, g.at_ms, g.deployment, g.outcome, g.outcome_at_ms, g.reason,"
    " g.node AS number FROM rollout_grant g JOIN node n ON n.id=g.node"
)
