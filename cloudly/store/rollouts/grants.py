"""One node's order by a rollout, and what became of it: rows of that node only.

Rules:
- A grant belongs to one deployment at a time; a result is booked by the deployment's id, which is drawn anew for each,
  so it can reach no other rollout.
- Finished is finished: an outcome never changes, but for one that succeeded and relapsed before its phase had passed.
  What is told after that is kept in `late` until the leading process has told it in a note.
- A node that is flashed again or restored goes on under a new deployment, which takes the grant over.
- Any other order for the node supersedes a grant that is still in flight.
"""

from __future__ import annotations

from cloudly.deployments import FAILED, ROLLBACK_NEEDED, ROLLED_BACK, SUCCEEDED
from cloudly.rollouts.counts import BAD, Outcome, hear
from cloudly.store.rollouts import story
from cloudly.store.sql import Connection

REPORTED = {
    SUCCEEDED: Outcome.SUCCEEDED,
    FAILED: Outcome.FAILED,
    ROLLBACK_NEEDED: Outcome.ROLLED_BACK,  # it can no longer succeed, and nobody waits for the way back
    ROLLED_BACK: Outcome.ROLLED_BACK,
    "superseded": Outcome.SUPERSEDED,
}
"""What the state of a deployment says of its grant; another one: nothing yet."""
MOST_REASON = 500


def give(  # noqa: PLR0913 - all that a grant is
    db: Connection, rollout: int, node: int, *, phase: int, deployment: str, now_ms: int
) -> None:
    """The node has been given the order. Raises the engine's error if it was before."""
    db.execute(
        "INSERT INTO rollout_grant(rollout, node, phase, at_ms, deployment, outcome, outcome_at_ms, reason, counted,"
        " late) VALUES(?,?,?,?,?,NULL,NULL,'','','')",
        (rollout, node, phase, now_ms, deployment),
    )


def reached(  # noqa: PLR0913 - whose deployment, where it is now, why, and when
    db: Connection, node: int, deployment: str, *, state: str, reason: str, now_ms: int
) -> None:
    """The journal proves that the deployment has reached that state."""
    reported = REPORTED.get(state)
    if reported is None:
        return
    row = db.execute(
        "SELECT rollout, phase, outcome FROM rollout_grant WHERE deployment=? AND node=?",
        (deployment, node),
    ).fetchone()
    if row is None:
        return
    rollout, phase, outcome = row
    if outcome is None:
        _settle(db, deployment, reported, reason, now_ms)
    elif state != ROLLBACK_NEEDED:  # its end is still to come, and is told once
        _hear_again(db, rollout, phase, deployment, Outcome(outcome), reported, reason, now_ms)


def supersede_node(db: Connection, node: int, reason: str, now_ms: int) -> None:
    """Somebody gives the node something else, or makes it another, before its target's grant has an outcome."""
    db.execute(
        "UPDATE rollout_grant SET outcome=?, outcome_at_ms=?, reason=? WHERE outcome IS NULL"
        " AND deployment=(SELECT deployment FROM desired WHERE node=?)",
        (Outcome.SUPERSEDED, now_ms, reason[:MOST_REASON], node),
    )


def take_over(db: Connection, node: int, deployment: str) -> None:
    """The node's order goes out once more: what comes of it is booked to the same grant, if it has one."""
    db.execute(
        "UPDATE rollout_grant SET deployment=? WHERE deployment=(SELECT deployment FROM desired WHERE node=?)",
        (deployment, node),
    )


def _settle(db: Connection, deployment: str, outcome: Outcome, reason: str, now_ms: int) -> None:
    db.execute(
        "UPDATE rollout_grant SET outcome=?, outcome_at_ms=?, reason=? WHERE deployment=?",
        (outcome, now_ms, reason[:MOST_REASON], deployment),
    )


def _hear_again(  # noqa: PLR0913, PLR0917 - the grant, and what is told of it now
    db: Connection,
    rollout: int,
    phase: int,
    deployment: str,
    outcome: Outcome,
    reported: Outcome,
    reason: str,
    now_ms: int,
) -> None:
    """A second word about a grant. Only a relapse asks how the rollout stands, so only that reads its story."""
    passed, final = False, False
    if outcome is Outcome.SUCCEEDED and reported in BAD:
        believed = story.recall(db, rollout).believed
        final, passed = believed.is_final, believed.slices[phase].passed_at_ms is not None
    heard = hear(reported, counted=outcome, is_final=final, phase_has_passed=passed)
    if heard.counts_as is not None:
        _settle(db, deployment, heard.counts_as, reason, now_ms)
    elif heard.is_late:
        db.execute(
            "UPDATE rollout_grant SET late=? WHERE deployment=?", (reported.value, deployment)
        )
