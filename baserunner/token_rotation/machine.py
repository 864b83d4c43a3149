"""The rotation of the node token: which fact may follow which state, and what it changes. Pure.

Laws:
- The new token is durable (state.json), beside the old one, before anybody is told of it; Cloudly is told its hash.
- It is used only after Cloudly said that it has that hash. From then on Cloudly takes both, until the new one was used.
- No token is in any fact: the first 12 hex digits of its SHA-256 say which one is meant.
- A rotation that cannot go on is dropped, and the node token that is in use stays; Cloudly asks again if it wants to.

Source: docs/adr/0016.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from journal.chart import Arrow, Chart, Waits
from journal.facts import Fact
from journal.recall import Machine

# fmt: off
CHART = Chart(
    name="token-rotation",
    initial="new",
    arrows=(
        #     fact                 from          to
        Arrow("rotation-asked",    "new",        "drawing"),
        Arrow("token-drawn",       "drawing",    "announcing"),
        Arrow("token-announced",   "announcing", "switching"),
        Arrow("token-switched",    "switching",  "proving"),
        Arrow("token-proved",      "proving",    "rotated"),
        Arrow("rotation-dropped",  "drawing",    "dropped"),
        Arrow("rotation-dropped",  "announcing", "dropped"),
        Arrow("rotation-dropped",  "switching",  "dropped"),
        Arrow("rotation-dropped",  "proving",    "dropped"),
    ),
    waits={
        #                    owner      waits for                                      deadline  then                                resume
        "new":        Waits("us",      "Cloudly's wish to be written down",           None,     "another node token is drawn",      "write it down when Cloudly asks again"),
        "drawing":    Waits("us",      "another node token to be durable",            None,     "its hash is announced",            "draw one: nobody was told of another"),
        "announcing": Waits("cloudly", "Cloudly to say that it has the new node token's hash", None, "the new one is used; until then the old one is, and it is announced again after each heartbeat", "announce the same one again"),
        "switching":  Waits("us",      "state.json to name the new node token",       None,     "the next heartbeat is sent with it", "look which one state.json names; name the new one"),
        "proving":    Waits("cloudly", "an answer to a heartbeat with the new node token", None, "the old one is of no use any more; if the new one is refused, the old one is tried", "send a heartbeat with the one that state.json names"),
    },
    final=frozenset({"rotated", "dropped"}),
)
# fmt: on


@dataclass(frozen=True, slots=True)
class Rotation:
    """What one rotation believes."""

    generation: int = 0
    """Which generation of the node token Cloudly asked for."""
    fingerprint: str = ""
    """Of the token that was drawn; empty: none was yet."""
    reason: str = ""
    """Why it was dropped."""


def fold(believed: Rotation, fact: Fact) -> Rotation:
    """Source of every field: the fact of the same name in `steps.py`."""
    values = fact.values
    match fact.kind:
        case "rotation-asked":
            return replace(believed, generation=values["generation"])
        case "token-drawn":
            return replace(believed, fingerprint=values["fingerprint"])
        case "rotation-dropped":
            return replace(believed, reason=values["reason"])
        case _:
            return believed


MACHINE = Machine(chart=CHART, start=Rotation(), fold=fold)


def deadline_s(state: str, _believed: Rotation) -> float | None:
    """How long this state may last, in seconds from its entry; None: as long as it takes."""
    return CHART.waits[state].deadline_s
