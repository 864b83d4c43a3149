"""What the agent keeps on the device: the journal's limits with this agent's words in them."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import replace

from baserunner.machines import MACHINES
from journal.journal import Journal
from journal.problems import JournalProblem
from journal.recall import freezer
from journal.retention import Limits, Retained
from journal.summary import STREAM

log = logging.getLogger(__name__)

LIMITS = Limits(
    progress=frozenset({"progressed"}),
    failed=frozenset({"failed", "rollback-needed", "rolling-back", "rolled-back"}),
)
ON_A_FULL_DISK = replace(LIMITS, keep_log=200, keep_core=500)
"""Then only little of what Cloudly has stays; what it has not stays all the same."""
MOST_STEPS = 100
_MACHINES = {name: known.machine for name, known in MACHINES.items()}


def retain(journal: Journal) -> Retained:
    """One step, of a few milliseconds. Whether Cloudly is there or not: a device without it fills up too."""
    return journal.retain(LIMITS, freezer(journal, _MACHINES))


def make_room(journal: Journal) -> bool:
    """On a full disk: spend the reserve to say so, and to forget what Cloudly has. False: it was spent already.

    Facts then go where facts went, so the agent goes on for long, also when nobody frees the disk.
    """
    if not journal.spend_reserve():
        return False
    with contextlib.suppress(JournalProblem):
        journal.note(STREAM, "disk-full")
        journal.sync()
        for _ in range(MOST_STEPS):
            if not journal.retain(ON_A_FULL_DISK, freezer(journal, _MACHINES)).forgotten:
                break
    log.warning("the disk is full: the journal's reserve is spent, free some space")
    return True
