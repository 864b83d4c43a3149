"""A chunk of a journal: the facts of one accepted batch, as they came. Pure."""

from __future__ import annotations

from collections.abc import Iterable

MOST_N = 2**53


def places(claimed: Iterable[object], after: int) -> list[int]:
    """The place of each fact among those of both lanes: its own `n`, and always behind its predecessor in its lane.

    A fact that cannot be decoded, or claims a place that was taken, comes right after its predecessor.
    """
    found = []
    for n in claimed:
        known = isinstance(n, int) and not isinstance(n, bool) and n <= MOST_N
        after = max(after + 1, n) if known else after + 1  # type: ignore[call-overload]
        found.append(after)
    return found
