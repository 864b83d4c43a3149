"""When no update lock of a neighbour may begin: read from the journal, so that no restart is too early to know."""

from __future__ import annotations

from baserunner.app_update.machine import NO_NEW_LOCK
from journal.reading import Reading

NO_NEW_LOCK_IN = {"app-update": NO_NEW_LOCK, "reboot": frozenset({"rebooting"})}
"""By machine. Once the intent is written the Supervisor may be at work, whatever this run has seen of it."""


def why_no_lock(journal: Reading) -> str:
    """In words; empty: one may begin now."""
    for info in journal.open_streams():
        if info.state in NO_NEW_LOCK_IN.get(info.name.partition("/")[0], ()):
            return f"{info.name} is {info.state}: ask again when it is over (`baserunner why {info.name}`)"
    return ""
