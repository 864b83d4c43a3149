"""How the config of a target becomes the settings of the device, and what of it the backend is told at first. Pure.

Rules:
- A setting that the target does not name goes to its default: what the backend does not merge back is dropped.
- All settings that differ change in one step, in the order of the table, and are told as one line.
- A value of the wrong kind is ignored for the default, with a warning in the log stream. There are no bounds: a number
  is taken as it is (code).
- A new device tells its backend each setting that is not the default and that the target does not name.

Source: `backend/first-boot.json` rows 1, 4, 5 and 21, and `backend/updates.json` row 146.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from simulators.supervisor.settings import DEFAULTS, TRUE, number

FALSE: Final = ("0", "false", "off")
VPN: Final = "SUPERVISOR_VPN_CONTROL"
LOCAL_MODE: Final = "SUPERVISOR_LOCAL_MODE"
TOLD_AS: Final = "RESIN_"
"""The prefix under which a setting is reported."""

KEYS: Final = {"SUPERVISOR_POLL_INTERVAL": "appUpdatePollInterval"}
"""How the Supervisor calls a setting in its warning, where that is known."""


@dataclass(slots=True)
class Changes:
    """What has to change, in the target's own words."""

    told: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def changes(current: Mapping[str, str], target: Mapping[str, str]) -> Changes:
    """What brings these settings to the target."""
    found = Changes()
    for name, default in DEFAULTS.items():
        wanted = target.get(name, default)
        if _same(name, current.get(name, ""), wanted):
            continue
        if _valid(name, wanted):
            found.told[name] = wanted
        elif not _same(name, current.get(name, ""), default):
            found.told[name] = default
            found.warnings.append(
                f"Warning: Ignoring invalid device configuration value for {KEYS.get(name, name)},"
                f" value: '{wanted}'. Falling back to default ({default})"
            )
    return found


def kept_as(name: str, value: str) -> str:
    """A value as the device shows it afterwards: `1` has become `true`."""
    if DEFAULTS[name] in ("true", "false"):
        return "true" if value in TRUE else "false"
    as_number = number(value)
    return str(as_number) if DEFAULTS[name].isdigit() and as_number is not None else value


def to_tell(current: Mapping[str, str], target: Mapping[str, str]) -> list[tuple[str, str]]:
    """Which settings a new device reports, as (name, value), in order."""
    told = []
    for name, default in DEFAULTS.items():
        value = "false" if name == LOCAL_MODE else current.get(name, default)
        if name not in target and value != default:
            told.append((f"{TOLD_AS}{name}", value))
    return told


def _same(name: str, ours: str, wanted: str) -> bool:
    if _valid(name, ours) and _valid(name, wanted):
        return kept_as(name, ours) == kept_as(name, wanted)
    return ours == wanted


def _valid(name: str, value: str) -> bool:
    default = DEFAULTS[name]
    if default in ("true", "false"):
        return value in (*TRUE, *FALSE)
    return number(value) is not None if default.isdigit() else True
