"""What Cloudly will never get of a node's journal, told for people and programs: `cloudly node gaps` and the API."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cloudly.gaps import words
from cloudly.store import story
from cloudly.store.sql import Connection
from cloudly.story import hole_words

BESIDE = "; these were the device's own, beside another writer's facts"
MAYBE_BESIDE = (
    "; these were the device's own, and what Cloudly has of these numbers may be another writer's"
)


def gaps(
    db: Connection,
    node: int,
    *,
    after: tuple[int, str, int] | None = None,
    limit: int | None = None,
) -> list[dict[str, Any]]:
    """Missing ranges in order. `after`: epoch, lane and first seq of the last one that is not wanted."""
    return [_told(one, branch=False) for one in story.gaps(db, node, after=after, limit=limit)]


def beside(db: Connection, node: int) -> list[dict[str, Any]]:
    """Ranges of the device's own where Cloudly has another writer's facts."""
    return [_told(one, branch=True) for one in story.branch_gaps(db, node)]


def holes(db: Connection, node: int) -> list[dict[str, Any]]:
    """Epochs of which Cloudly has nothing, each before the one that follows it."""
    return [
        {
            "epoch_n": epoch["n"],
            "epoch": epoch["predecessor"],
            "why": "hole",
            "words": hole_words(epoch["predecessor"]),
        }
        for epoch in story.epochs(db, node)
        if epoch["hole"]
    ]


def _told(row: Mapping[str, Any], *, branch: bool) -> dict[str, Any]:
    last_hash = row["last_hash"]
    return {
        **row,
        "branch": branch,
        "last_hash": last_hash.hex() if last_hash else None,
        "kinds": json.loads(row["kinds"]),
        "words": words(row["why"]) + (_beside(row) if branch else ""),
    }


def _beside(row: Mapping[str, Any]) -> str:
    return MAYBE_BESIDE if row.get("here") else BESIDE
