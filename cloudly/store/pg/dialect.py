"""From the store's sentences to PostgreSQL's: parameters, and three functions that have another name there. Pure.

Source: PostgreSQL 15, chapters 9.16 (JSON), 9.21 (aggregates) and 43 (parameters are `$1`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

TOKEN = re.compile(r"'(?:[^']|'')*'|\?(\d*)")
NAMES = {
    "json_group_object(": "json_object_agg(",
    "group_concat(": "string_agg(",
}


@dataclass(frozen=True, slots=True)
class Sentence:
    text: str
    order: tuple[int, ...]
    """Which of the given parameters each of PostgreSQL's is."""


@lru_cache(maxsize=2000)
def translated(sentence: str) -> Sentence:
    """`?` in their order; `?2` by their number, used as often as they are named."""
    order: list[int] = []

    def numbered(found: re.Match[str]) -> str:
        if not found[0].startswith("?"):
            return found[0]
        place = int(found[1]) - 1 if found[1] else len(order)
        if place not in order:
            order.append(place)
        return f"${order.index(place) + 1}"

    text = TOKEN.sub(numbered, sentence)
    for ours, theirs in NAMES.items():
        text = text.replace(ours, theirs)
    return Sentence(text, tuple(order))
