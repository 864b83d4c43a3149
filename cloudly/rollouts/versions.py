"""The order of versions, for ranges in a selector.

Rules:
- A version is numbers with dots; a `v` in front is ignored, and so is everything from `+` on: `v1.4.0+lab` is 1.4.0.
- Missing numbers are zero: 1.4 is 1.4.0.
- What follows a dash comes before the version itself: 1.4.0-rc.1 < 1.4.0. Its parts are compared one by one: numbers
  as numbers, words as text, a number before a word, fewer parts before more.
- What is no version by these rules ("lab-build") has no order: every range says no to it.

Source: Semantic Versioning 2.0.0, item 11, for any count of numbers.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TypeAlias

Order: TypeAlias = tuple[tuple[int, ...], int, tuple[tuple[int, int, str], ...]]
"""Numbers without zeros at their end; 0 for a pre-release and 1 for a release; the parts of the pre-release."""

_VERSION = re.compile(r"[vV]?(\d{1,18}(?:\.\d{1,18}){0,7})(?:-([0-9A-Za-z.-]{1,200}))?(?:\+.*)?")


@lru_cache(maxsize=4096)
def order(version: str) -> Order | None:
    """What to compare; None: it has no order."""
    match = _VERSION.fullmatch(version)
    if match is None or not version.isascii():
        return None
    numbers = [int(number) for number in match[1].split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    parts = match[2].split(".") if match[2] else []
    return tuple(numbers), 0 if parts else 1, tuple(_part(part) for part in parts)


def _part(part: str) -> tuple[int, int, str]:
    return (0, int(part), "") if part.isdecimal() else (1, 0, part)
