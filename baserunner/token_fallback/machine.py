"""Falling back to another node token: which fact may follow which state, and what it changes. Pure.

Laws:
- A refusal of one node token is not the end while this device has another: a Cloudly that was restored from a backup may
  know only an older one, and one that was not may know only the newer one of a disk that was.
- Each is tried once; which were refused is in the journal, so that a restart goes on and not in a circle.
- When all are refused, the first refusal is what counts: enrollment begins again with it.
- No token is in any fact: the first 12 hex digits of its SHA-256 say which one is meant.

Source: docs/adr/0016.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from journal.chart import Arrow, Chart, Waits
from journal.facts import Fact
from journal.recall import Machine

# fmt: off
CHART = Chart(
    name="token-fallback",
    initial="new",
    arrows=(
        #     fact                from       to
        Arrow("token-refused",    "new",     "turning"),
        Arrow("token-turned",     "turning", "trying"),
        Arrow("token-refused",    "trying",  "turning"),
        Arrow("token-taken",      "trying",  "settled"),
        Arrow("tokens-exhausted", "turning", "exhausted"),
    ),
    waits={
        #                 owner      waits for                                       deadline  then                                  resume
        "new":     Waits("us",      "the refusal to be written down",               None,     "another node token is looked for",   "send a heartbeat: the refusal comes again"),
        "turning": Waits("us",      "state.json to name another node token",        None,     "a heartbeat is sent with it; without another one, enrollment begins again", "look which one state.json names"),
        "trying":  Waits("cloudly", "an answer to a heartbeat with another node token", None, "it is the node's again; if it is refused too, the next one is tried", "send a heartbeat with the one that state.json names"),
    },
    final=frozenset({"settled", "exhausted"}),
)
# fmt: on


@dataclass(frozen=True, slots=True)
class Fallback:
    """What one search for a node token that is taken believes."""

    refused: tuple[str, ...] = ()
    """Fingerprints of the tokens that were refused, in order."""
    reason: str = ""
    """What Cloudly said of the first one."""
    code: str = ""


def fold(believed: Fallback, fact: Fact) -> Fallback:
    """Source of every field: the fact of the same name in `steps.py`."""
    if fact.kind != "token-refused":
        return believed
    values = fact.values
    refused = (*believed.refused, values["fingerprint"])
    if believed.refused:
        return replace(believed, refused=refused)
    return Fallback(refused=refused, reason=values["reason"], code=values["code"])


MACHINE = Machine(chart=CHART, start=Fallback(), fold=fold)


def deadline_s(state: str, _believed: Fallback) -> float | None:
    """How long this state may last, in seconds from its entry; None: as long as it takes."""
    return CHART.waits[state].deadline_s
