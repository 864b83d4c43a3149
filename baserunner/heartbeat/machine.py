"""The heartbeat machine: one stream per run of the agent, in the journal's log lane. Pure.

Laws:
- A heartbeat changes nothing on the device, so neither its sending nor its answer need be durable at once: they wait
  for the next durable fact, or for the flush before the next shipping. An idle device flushes once in five minutes.
- A node that Cloudly no longer knows stops asking: `rejected` is final for the run's heartbeats, and enrollment
  begins again (see `enrollment/machine.py`).
- Acked heartbeats are folded into one summary fact by the journal's retention.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from journal.chart import Arrow, Chart, Waits
from journal.facts import Fact, Lane
from journal.recall import Machine

# fmt: off
CHART = Chart(
    name="heartbeat",
    lane=Lane.LOG,
    initial="new",
    arrows=(
        #     fact                    from           to
        Arrow("run-started",          "new",         "resting"),
        Arrow("heartbeat-sent",       "resting",     "sending"),
        Arrow("heartbeat-answered",   "sending",     "resting"),
        Arrow("heartbeat-unanswered", "sending",     "backing-off"),
        Arrow("heartbeat-rejected",   "sending",     "rejected"),
        Arrow("heartbeat-sent",       "backing-off", "sending"),
        Arrow("run-ended",            "resting",     "ended"),
        Arrow("run-ended",            "sending",     "ended"),
        Arrow("run-ended",            "backing-off", "ended"),
    ),
    waits={
        #                     owner      waits for                               deadline  then                     resume
        "new":         Waits("us",      "the agent to start",                   None,     "the run begins",        "a run belongs to its process: it is closed as interrupted"),
        "resting":     Waits("us",      "the next heartbeat to be due",         None,     "the next one is sent",  "closed as interrupted; the next run goes on"),
        "sending":     Waits("cloudly", "an answer to the heartbeat",           60.0,     "it counts as unanswered", "closed as interrupted; a heartbeat sent twice does no harm"),
        "backing-off": Waits("cloudly", "Cloudly to be reachable",              None,     "the next one is sent",  "closed as interrupted; the next run goes on"),
    },
    final=frozenset({"rejected", "ended"}),
)
# fmt: on


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What one run believes about its heartbeats."""

    misses: int = 0
    """Heartbeats in a row that got no answer."""
    next_s: float = 0.0
    """Seconds from the last fact until the next heartbeat is due."""
    generation: int = 0
    """The desired state's generation in the last answer."""
    answered_at_ms: int | None = None
    reason: str = ""


def fold(believed: Heartbeat, fact: Fact) -> Heartbeat:
    """Source of every field: the fact of the same name in `steps.py`."""
    values = fact.values
    match fact.kind:
        case "heartbeat-answered":
            return Heartbeat(
                next_s=values["next_s"],
                generation=values["generation"],
                answered_at_ms=fact.at_ms,
            )
        case "heartbeat-unanswered":
            return replace(
                believed,
                misses=believed.misses + 1,
                next_s=values["retry_s"],
                reason=values["reason"],
            )
        case "heartbeat-rejected":
            return replace(believed, reason=values["reason"])
        case _:
            return believed


MACHINE = Machine(chart=CHART, start=Heartbeat(), fold=fold)


def deadline_s(state: str, believed: Heartbeat) -> float | None:
    """How long this state may last, in seconds from its entry; None: as long as it takes."""
    if state in {"resting", "backing-off"}:
        return believed.next_s
    return CHART.waits[state].deadline_s
