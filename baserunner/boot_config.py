"""The host's config.json as settings of the agent, on a host that mounts its boot partition for it.

A stock balenaOS does not: there a service gets its environment from the target state (docs/adr/0014).
"""

from __future__ import annotations

import json
from pathlib import Path

from baserunner.problems import SettingsProblem

MAX_BYTES = 1_048_576
KEYS = {
    "BASEOS_CLOUDLY_URL": "BASEOS_CLOUDLY_URL",
    "BASEOS_JOIN_TOKEN": "BASEOS_JOIN_TOKEN",
    "balenaRootCA": "BASEOS_CLOUDLY_CA",
}
"""Its key and the variable that it stands for."""


def read_boot_config(path: Path) -> dict[str, str]:
    """What it says for the agent. Raises SettingsProblem, without the contents."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise SettingsProblem(
            f"BASEOS_CONFIG_JSON ({path}) cannot be read: {error.strerror}; is the boot partition mounted?"
        ) from None
    try:
        config = json.loads(raw)
    except ValueError:
        config = None
    if not isinstance(config, dict):
        raise SettingsProblem(f"BASEOS_CONFIG_JSON ({path}, {len(raw)} bytes) is no JSON object")
    found = {variable: config.get(key) for key, variable in KEYS.items()}
    return {
        name: value.strip() for name, value in found.items() if isinstance(value, str) and value
    }
