"""The diagnosis machine. Pure.

Laws:
- An order for a diagnosis is answered once: by its id it is known from one that was answered before.
- Looking changes nothing, so it may be done again after a restart. A part that does not answer is a finding, no failure.
"""

from __future__ import annotations

from dataclasses import dataclass

from journal.chart import Arrow, Chart, Waits
from journal.facts import Fact
from journal.recall import Machine

# fmt: off
CHART = Chart(
    name="diagnosis",
    initial="new",
    arrows=(
        #     fact                  from       to
        Arrow("diagnosis-asked",    "new",     "looking"),
        Arrow("diagnosis-answered", "looking", "done"),
    ),
    waits={
        #                 owner  waits for                       deadline  then               resume
        "new":     Waits("us",  "the order to be written down", None,     "it is looked into", "look"),
        "looking": Waits("us",  "each part to be looked at",    None,     "what is seen within half a minute is told", "look again: looking changes nothing"),
    },
    final=frozenset({"done"}),
)
# fmt: on


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What one diagnosis believes."""

    diagnosis: str = ""
    """The id that Cloudly gave it."""


def fold(believed: Diagnosis, fact: Fact) -> Diagnosis:
    """Source of every field: the fact of the same name in `steps.py`."""
    if fact.kind == "diagnosis-asked":
        return Diagnosis(diagnosis=fact.values["diagnosis"])
    return believed


MACHINE = Machine(chart=CHART, start=Diagnosis(), fold=fold)


def deadline_s(state: str, _believed: Diagnosis) -> float | None:
    """How long this state may last, in seconds from its entry; None: as long as it takes."""
    return CHART.waits[state].deadline_s
