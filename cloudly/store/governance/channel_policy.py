"""How many must agree in a channel, changed; and a channel that is removed.

Rules:
- Another policy counts for what is not published yet, and publishes nothing by itself: `publish` does, or the next yes.
- What is published stays, whatever policy it was published under.
- A channel that a fleet follows, or that has a floor, is not removed: both hold nodes back for a reason.
"""

from __future__ import annotations

from cloudly.governance import approvals
from cloudly.problems import BadOrder
from cloudly.store import audit
from cloudly.store.audit import By
from cloudly.store.governance import channels
from cloudly.store.sql import Connection, Row


def set_policy(
    db: Connection, channel: Row, by: By, *, approvals_needed: int | None, second_person: bool
) -> None:
    """The one that it has already changes nothing. Raises BadOrder."""
    needed = approvals.needed_of(approvals_needed, second_person=second_person)
    changed = db.execute(
        "UPDATE channel SET approvals=?1, second_person=?2 WHERE id=?3 AND (approvals<>?1 OR second_person<>?2)",
        (needed, int(second_person), channel["id"]),
    ).rowcount
    if changed:
        told = {"approvals": needed, "second_person": second_person}
        audit.note(db, by, "channel.policy_set", f"channel/{channel['name']}", **told)


def remove(db: Connection, channel: Row, by: By) -> None:
    """With what was said of its releases; the audit keeps that. Raises BadOrder."""
    name, number = channel["name"], channel["id"]
    fleets = channels.followers(db, number)
    if fleets:
        raise BadOrder(f"the channel {name} is followed by {', '.join(fleets[:5])}: end that first")
    floors = db.execute(
        "SELECT count(*) FROM channel_release WHERE channel=? AND is_floor=1", (number,)
    ).fetchone()[0]
    if floors:
        raise BadOrder(
            f"the channel {name} has {floors} floors, which no upgrade may skip: say first that they are none"
        )
    for table in ("approval", "channel_release"):
        db.execute(f"DELETE FROM {table} WHERE channel=?", (number,))  # noqa: S608 - one of two
    db.execute("DELETE FROM channel WHERE id=?", (number,))
    audit.note(db, by, "channel.removed", f"channel/{name}")
