"""When a release is published in a channel: enough different persons said yes, and nobody says no.

Rules:
- One word per person: a later one takes the place of the earlier, until the release is published.
- Where the channel wants a second person, the proposer's own yes does not count.
- A refusal blocks, however many say yes, until who refused says otherwise.
- Published is published: no later word changes it. Withdrawing is a fact of its own, and final in that channel.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from cloudly.governance.people import key
from cloudly.problems import BadOrder

MOST_APPROVALS = 20
"""More persons than have ever had to agree."""


class Decision(StrEnum):
    APPROVED = "approved"
    REFUSED = "refused"


class State(StrEnum):
    """Of a release in a channel."""

    PROPOSED = "proposed"
    REFUSED = "refused"
    PUBLISHED = "published"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True)
class Word:
    """What one person says of a proposal."""

    who: str
    decision: Decision


@dataclass(frozen=True, slots=True)
class Proposal:
    """A release in a channel."""

    channel: str
    version: str
    proposed_by: str
    needed: int
    """How many persons must say yes."""
    second_person: bool
    words: tuple[Word, ...] = ()
    published: bool = False
    withdrawn: bool = False

    @property
    def state(self) -> State:
        if self.withdrawn:
            return State.WITHDRAWN
        if self.published:
            return State.PUBLISHED
        return State.REFUSED if self.refused_by else State.PROPOSED

    @property
    def refused_by(self) -> tuple[str, ...]:
        return tuple(word.who for word in self.words if word.decision is Decision.REFUSED)

    @property
    def approved_by(self) -> tuple[str, ...]:
        """Those whose yes counts, once each."""
        said = {
            key(word.who): word.who for word in self.words if word.decision is Decision.APPROVED
        }
        if self.second_person:
            said.pop(key(self.proposed_by), None)
        return tuple(said.values())


def needed_of(approvals: int | None, *, second_person: bool) -> int:
    """How many a new channel needs; None: as few as it can. Raises BadOrder."""
    needed = int(second_person) if approvals is None else approvals
    if not 0 <= needed <= MOST_APPROVALS:
        raise BadOrder(f"--approvals {needed}: from 0 to {MOST_APPROVALS}")
    if second_person and not needed:
        raise BadOrder(
            "--second-person wants another's yes and --approvals 0 wants none: leave one of them out"
        )
    return needed


def missing(proposal: Proposal) -> str:
    """What it still waits for before it is published; empty: nothing."""
    if proposal.refused_by:
        who = ", ".join(proposal.refused_by)
        return f"it was refused by {who}, who may take that back"
    more = proposal.needed - len(proposal.approved_by)
    if more <= 0:
        return ""
    others = " other than who proposed it" if proposal.second_person else ""
    return f"it waits for the yes of {more} more person{'s' * (more > 1)}{others}"


def must_be_open(proposal: Proposal, order: str) -> None:
    """Words are for what is neither published nor withdrawn. Raises BadOrder."""
    name = f"{order} {proposal.version} in {proposal.channel}"
    match proposal.state:
        case State.WITHDRAWN:
            raise BadOrder(f"{name}: it was withdrawn there, which is final")
        case State.PUBLISHED:
            raise BadOrder(
                f"{name}: it is published there, and no word changes that; to end it,"
                f" `cloudly channel withdraw {proposal.channel} {proposal.version} --reason …`"
            )
