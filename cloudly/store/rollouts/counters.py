"""How many, as of now: what the facts have counted, and by index what is in flight and what came since.

Rules:
- The cost is that of the nodes in flight (`Plan.concurrency`) and of what came since the last tick, never the fleet's.
- `granted` is what is settled and what is in flight together, so no counter can run away from its grants.
"""

from __future__ import annotations

from dataclasses import replace

from cloudly.rollouts.belief import Rollout, with_counts
from cloudly.rollouts.counts import Counts, Outcome
from cloudly.store.rollouts.story import Story
from cloudly.store.sql import Connection

NEWS = "outcome IS NOT NULL AND (counted<>outcome OR late<>'')"
"""As the index says it (ix_rollout_grant_news)."""


def counts(db: Connection, known: Story) -> tuple[Counts, ...]:
    """Of each phase that was opened."""
    settled = [each.counts for each in known.believed.slices]
    for phase, outcome, before, many in db.execute(
        f"SELECT phase, outcome, counted, count(*) FROM rollout_grant WHERE rollout=? AND {NEWS}"  # noqa: S608 - ours
        " AND counted<>outcome GROUP BY phase, outcome, counted",
        (known.number,),
    ).fetchall():
        if phase < len(settled):  # a look, unlike a decision, may be older than what it finds
            settled[phase] = _with(settled[phase], before, Outcome(outcome), many)
    in_flight = dict(
        db.execute(
            "SELECT phase, count(*) FROM rollout_grant WHERE rollout=? AND outcome IS NULL GROUP BY phase",
            (known.number,),
        ).fetchall()
    )
    return tuple(
        replace(each, granted=each.settled + in_flight.get(phase, 0))
        for phase, each in enumerate(settled)
    )


def live(db: Connection, known: Story) -> Rollout:
    """What is believed, with the counters as they are: for `admission`, never folded on."""
    return with_counts(known.believed, counts(db, known))


def _with(counted: Counts, before: str, outcome: Outcome, many: int) -> Counts:
    """An outcome that no fact has counted yet. What relapsed before its success was counted never was one."""
    if outcome is Outcome.RELAPSED and not before:
        return counted.plus({outcome.value: many})
    return counted.with_outcome(outcome, many)
