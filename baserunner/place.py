"""Where the agent's data is. Apart from the settings, so that reading a journal imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def read_data_dir(environment: Mapping[str, str]) -> Path:
    """`BASEOS_DATA_DIR`: all that reading a journal needs."""
    return Path(environment.get("BASEOS_DATA_DIR", "").strip() or "/data")


def home_in(data_dir: Path) -> Path:
    """Where the agent keeps what must survive: journal, state.json, orders."""
    return data_dir / "baseos"
