"""Lengths of time as operators write them: 24h, 30m, 90s, 7d, never. Nothing slow is imported: commands use it."""

from __future__ import annotations

import re

UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
FORM = "[1-9][0-9]{0,6}[smhd]|never"


def seconds_of(text: str) -> int:
    """`never` is 0. Raises ValueError."""
    if re.fullmatch(FORM, text) is None:
        raise ValueError("it must be a duration, for example 24h, 30m, 7d or never")
    return 0 if text == "never" else int(text[:-1]) * UNITS_S[text[-1]]
