"""After a rollout over a whole fleet: what nodes get that enroll later, where nobody has decided that by name.

A rollout changes nodes, never what a fleet wants of new ones: half a fleet may be what was meant, and a channel or a
pin says it already. So who looks at a completed one is told where new nodes still get something else.
"""

from __future__ import annotations

from typing import Any

from cloudly.rollouts.selector import parse
from cloudly.store import releases
from cloudly.store.governance.following import wanted_by
from cloudly.store.rollouts.story import Story
from cloudly.store.sql import Connection

FLEETS = "SELECT id, name FROM fleet WHERE channel IS NULL ORDER BY id"


def left_behind(db: Connection, told: Story, now_ms: int) -> list[dict[str, Any]]:
    """Fleets that it covered whole, and what their new nodes get instead: `version`, or None for no release at all."""
    if told.believed.state != "completed" or not told.plan.covers_all:
        return []
    meant = _whole_fleets(told.plan.selector)
    found = []
    for number, name in db.execute(FLEETS).fetchall():
        wants = wanted_by(db, number, now_ms)
        if (meant is None or name in meant) and (wants is None or wants.release != told.release):
            instead = None if wants is None else releases.named(db, wants.release)["version"]
            found.append({"fleet": name, "version": instead})
    return found


def _whole_fleets(selector: str) -> frozenset[str] | None:
    """The fleets of which it selects every node; None: all."""
    terms = parse(selector).terms
    if not terms:
        return None
    if len(terms) == 1 and (terms[0].key, terms[0].op) == ("fleet", "="):
        return frozenset(terms[0].values)
    return frozenset()
