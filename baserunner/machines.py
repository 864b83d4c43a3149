"""Every machine of the agent, by name: what is recalled, explained and drawn goes through this list."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import baserunner.app_update.machine as app_update
import baserunner.diagnosis.machine as diagnosis
import baserunner.enrollment.machine as enrollment
import baserunner.heartbeat.machine as heartbeat
import baserunner.locks.machine as lock
import baserunner.reboot.machine as reboot
import baserunner.token_fallback.machine as token_fallback
import baserunner.token_rotation.machine as token_rotation
from journal.recall import Machine


@dataclass(frozen=True, slots=True)
class Known:
    """A machine and how long its states may last, in seconds."""

    machine: Machine[Any]
    deadline_s: Callable[[str, Any], float | None]


MACHINES: dict[str, Known] = {
    module.CHART.name: Known(module.MACHINE, module.deadline_s)
    for module in (
        enrollment,
        heartbeat,
        app_update,
        reboot,
        lock,
        diagnosis,
        token_rotation,
        token_fallback,
    )
}
"""By the name before the slash in a stream's name."""
