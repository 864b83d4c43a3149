"""The enrollment machine: which fact may follow which state, and what it changes. Pure.

Laws:
- Node id and enrollment secret are durable (state.json) before Cloudly is asked, so a lost answer costs nothing:
  asking again with the same secret gets the same node token.
- `asking` means "Cloudly may have heard us". Its step looks into state.json first: the answer may already be there.
- A refusal is final for the join token that was refused, and for nothing else.
- A node that was revoked keeps its node token until it asks with another join token: it may be readmitted.
- A secret that has been enrolled with, by a copy of this disk or before it was restored, is never asked with again.
- A device that was fenced enrolls as its host's own node, if that is another one, and in a new epoch of its journal.

Source: DESIGN section 5, "Enrollment survives a lost answer".
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from journal.chart import Arrow, Chart, Waits
from journal.facts import Fact
from journal.recall import Machine

# fmt: off
CHART = Chart(
    name="enrollment",
    initial="new",
    arrows=(
        #     fact                    from              to
        Arrow("identity-drawn",       "new",            "ready"),
        Arrow("identity-lost",        "new",            "ready"),
        Arrow("identity-found",       "new",            "enrolled"),
        Arrow("node-token-rejected",  "new",            "refused"),
        Arrow("token-missing",        "ready",          "awaiting-token"),
        Arrow("register-requested",   "ready",          "asking"),
        Arrow("token-given",          "awaiting-token", "ready"),
        Arrow("enrolled",             "asking",         "enrolled"),
        Arrow("register-unanswered",  "asking",         "backing-off"),
        Arrow("register-refused",     "asking",         "refused"),
        Arrow("register-requested",   "backing-off",    "asking"),
        Arrow("token-missing",        "backing-off",    "awaiting-token"),
        Arrow("token-given",          "refused",        "ready"),
        Arrow("node-readmitted",      "refused",        "enrolled"),
    ),
    waits={
        #                        owner       waits for                          deadline  then                      resume
        "new":            Waits("us",       "an identity to be drawn",         None,     "it is drawn at once",    "use the one in state.json, else draw one"),
        "ready":          Waits("us",       "a join token to ask with",        None,     "Cloudly is asked",       "look for a join token again"),
        "awaiting-token": Waits("operator", "a join token: set BASEOS_JOIN_TOKEN or run `baserunner enroll`", None, "nothing is done until one is given", "look for a join token again"),
        "asking":         Waits("cloudly",  "an answer to the enrollment",     60.0,     "it is asked again, with the same secret", "state.json may hold the answer; else ask again with the same secret"),
        "backing-off":    Waits("cloudly",  "Cloudly to be reachable",         None,     "it is asked again",      "ask again"),
        "refused":        Waits("operator", "a fresh join token (`cloudly token create`, then `baserunner enroll` here): the last one was refused", None, "nothing is sent until the token changes, but that a revoked node asks once an hour whether it was readmitted", "compare the token with the refused one"),
    },
    final=frozenset({"enrolled"}),
)
# fmt: on


SPENT = "enrollment-closed"
"""Cloudly's word for it."""
REVOKED = "node-revoked"
"""The same."""


@dataclass(frozen=True, slots=True)
class Enrollment:
    """What one enrollment believes."""

    node_id: str = ""
    asks: int = 0
    """How often Cloudly was asked in a row without an answer."""
    token_fingerprint: str = ""
    """Which join token was last asked with; the first 12 hex digits of its SHA-256."""
    reason: str = ""
    """The last problem or refusal, in words."""
    retry_s: float = 0.0
    fenced: bool = False
    """Another device speaks as the node that this one was."""
    spent: bool = False
    """The enrollment secret was enrolled with by whoever had it too: it is of no use any more."""
    revoked: bool = False
    """An operator refused this node, and may take that back."""
    rejected: str = ""
    """Why this enrollment had to be: what Cloudly said when it no longer took the node token."""


def fold(believed: Enrollment, fact: Fact) -> Enrollment:
    """Source of every field: the fact of the same name in `steps.py`."""
    values = fact.values
    match fact.kind:
        case "identity-drawn" | "identity-lost" | "identity-found":
            return replace(believed, node_id=values["node_id"])
        case "register-requested":
            fingerprint = values["token_fingerprint"]
            return replace(
                believed, asks=believed.asks + 1, token_fingerprint=fingerprint, spent=False
            )
        case "register-unanswered":
            return replace(believed, reason=values["reason"], retry_s=values["retry_s"])
        case "register-refused":
            spent = values.get("code") == SPENT
            return replace(
                believed,
                reason=_besides(believed.rejected, values["reason"]),
                spent=spent,
                fenced=believed.fenced or spent,
            )
        case "node-token-rejected":
            return replace(
                believed,
                node_id=values["node_id"],
                reason=values["reason"],
                rejected=values["reason"],
                token_fingerprint=values["token_fingerprint"],
                fenced=values.get("code") == "fenced",
                revoked=values.get("code") == REVOKED,
            )
        case "token-given":
            return replace(believed, asks=0, reason="")
        case "enrolled" | "node-readmitted":
            return replace(believed, node_id=values["node_id"], reason="")
        case _:
            return believed


def _besides(rejected: str, refused: str) -> str:
    """Both, the cause first: "the join token is used up" alone hides that another device took the node over."""
    return f"{rejected} It asked to enroll anew: {refused}" if rejected else refused


MACHINE = Machine(chart=CHART, start=Enrollment(), fold=fold)


def deadline_s(state: str, believed: Enrollment) -> float | None:
    """How long this state may last, in seconds from its entry; None: as long as it takes."""
    if state == "backing-off":
        return believed.retry_s
    return CHART.waits[state].deadline_s
