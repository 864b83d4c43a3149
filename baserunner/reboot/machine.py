"""The reboot machine. Pure.

Laws:
- The intent is durable before the Supervisor is asked; a reboot has happened when the boot id has changed, and not
  when the Supervisor said 202 (it says so before anything happens).
- The update lock is released for it, because any lock of any service makes the Supervisor refuse (423).
- It waits for the update locks of neighbours, and not for ever: who asked for it does not expect it in the night.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from journal.chart import Arrow, Chart, Waits
from journal.facts import Fact
from journal.recall import Machine

# fmt: off
CHART = Chart(
    name="reboot",
    initial="new",
    arrows=(
        #     fact                from         to
        Arrow("reboot-requested", "new",       "rebooting"),
        Arrow("reboot-postponed", "new",       "waiting"),
        Arrow("reboot-refused",   "new",       "refused"),
        Arrow("reboot-requested", "waiting",   "rebooting"),
        Arrow("reboot-refused",   "waiting",   "refused"),
        Arrow("rebooted",         "rebooting", "done"),
        Arrow("reboot-refused",   "rebooting", "refused"),
        Arrow("reboot-failed",    "rebooting", "failed"),
    ),
    waits={
        #                   owner         waits for                     deadline  then                    resume
        "new":       Waits("us",         "the request to be judged",   None,     "it is asked for",      "judge it again"),
        "waiting":   Waits("onebox",     "the update locks of neighbours to end", 3600.0, "it is refused",       "look again whether one is held"),
        "rebooting": Waits("supervisor", "the host to boot again",     300.0,    "the reboot has failed", "a changed boot id: done; the same: ask once more"),
    },
    final=frozenset({"done", "refused", "failed"}),
)
# fmt: on


@dataclass(frozen=True, slots=True)
class Reboot:
    """What one reboot believes."""

    by: str = ""
    boot_id: str = ""
    """The boot in which it was asked for."""
    reason: str = ""


def fold(believed: Reboot, fact: Fact) -> Reboot:
    """Source of every field: the fact of the same name in `steps.py`."""
    match fact.kind:
        case "reboot-postponed":
            return Reboot(by=fact.values["by"], reason=fact.values["reason"])
        case "reboot-requested":
            return Reboot(by=fact.values["by"], boot_id=fact.boot_id)
        case "reboot-refused" | "reboot-failed":
            return replace(believed, reason=fact.values["reason"])
        case _:
            return believed


MACHINE = Machine(chart=CHART, start=Reboot(), fold=fold)


def deadline_s(state: str, _believed: Reboot) -> float | None:
    """How long this state may last, in seconds from its entry; None: as long as it takes."""
    return CHART.waits[state].deadline_s
