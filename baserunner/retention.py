"""What the agent keeps on the device: the journal's limits with this agent's words in them."""

from __future__ import annotations

from baserunner.machines import MACHINES
from journal.journal import Journal
from journal.recall import freezer
from journal.retention import Limits, Retained

LIMITS = Limits(
    progress=frozenset({"progressed"}),
    failed=frozenset({"failed", "rollback-needed", "rolling-back", "rolled-back"}),
)
_MACHINES = {name: known.machine for name, known in MACHINES.items()}


def retain(journal: Journal) -> Retained:
    """One step, of a few milliseconds. Whether Cloudly is there or not: a device without it fills up too."""
    return journal.retain(LIMITS, freezer(journal, _MACHINES))
