"""The Supervisor's settings, from the config of its target: names without prefix, values as strings.

Source: `GET_v2_local_target-state.json`, which shows them all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

TRUE: Final = ("1", "true", "on")

DEFAULTS: Final = {
    "SUPERVISOR_POLL_INTERVAL": "900000",
    "SUPERVISOR_INSTANT_UPDATE_TRIGGER": "true",
    "SUPERVISOR_LOCAL_MODE": "false",
    "SUPERVISOR_CONNECTIVITY_CHECK": "true",
    "SUPERVISOR_LOG_CONTROL": "true",
    "SUPERVISOR_API_REQUEST_TIMEOUT": "59000",
    "SUPERVISOR_DELTA": "false",
    "SUPERVISOR_DELTA_REQUEST_TIMEOUT": "59000",
    "SUPERVISOR_DELTA_APPLY_TIMEOUT": "0",
    "SUPERVISOR_DELTA_RETRY_COUNT": "30",
    "SUPERVISOR_DELTA_RETRY_INTERVAL": "10000",
    "SUPERVISOR_DELTA_VERSION": "2",
    "SUPERVISOR_OVERRIDE_LOCK": "false",
    "SUPERVISOR_PERSISTENT_LOGGING": "false",
    "HOST_FIREWALL_MODE": "off",
    "HOST_DISCOVERABILITY": "true",
    "SUPERVISOR_HARDWARE_METRICS": "true",
}

AT_FIRST: Final = {**DEFAULTS, "SUPERVISOR_POLL_INTERVAL": "60000", "HOST_FIREWALL_MODE": ""}
"""What the settings are on a device that no target has configured yet."""

UNMANAGED: Final = {
    **DEFAULTS,
    "SUPERVISOR_POLL_INTERVAL": "60000",
    "SUPERVISOR_LOCAL_MODE": "true",
    "HOST_FIREWALL_MODE": "",
    "SUPERVISOR_VPN_CONTROL": "true",
}


def shown_config(config: Mapping[str, str], *, managed: bool) -> dict[str, str]:
    """The config as `GET /v2/local/target-state` shows it: the target's own first, then the defaults."""
    if not managed:
        return dict(UNMANAGED)
    return {**config, "SUPERVISOR_VPN_CONTROL": "true"} | {
        name: config.get(name, value) for name, value in DEFAULTS.items()
    }


@dataclass(frozen=True, slots=True)
class Settings:
    """What of the config changes what the Supervisor does."""

    poll_interval_s: float
    instant_updates: bool
    local_mode: bool
    logs: bool
    hardware_metrics: bool

    @classmethod
    def of(cls, config: Mapping[str, str]) -> Settings:
        merged = DEFAULTS | dict(config)
        return cls(
            poll_interval_s=(number(merged["SUPERVISOR_POLL_INTERVAL"]) or 0) / 1000,
            instant_updates=merged["SUPERVISOR_INSTANT_UPDATE_TRIGGER"] in TRUE,
            local_mode=merged["SUPERVISOR_LOCAL_MODE"] in TRUE,
            logs=merged["SUPERVISOR_LOG_CONTROL"] in TRUE,
            hardware_metrics=merged["SUPERVISOR_HARDWARE_METRICS"] in TRUE,
        )


def number(value: str) -> int | None:
    """The number that a value begins with, as the Supervisor reads one; None when there is none."""
    digits = re.match(r"\s*[+-]?\d+", value)
    return int(digits.group()) if digits else None
