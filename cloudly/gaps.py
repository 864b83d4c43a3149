"""What Cloudly will never get of a journal, and why: the device's words where it has any. Pure.

Rules:
- Every missing seq is in exactly one recorded range; what nobody explains is `unexplained`.
- A device's explanation holds only for what is missing: it is clipped, and where two overlap the first one holds.
- A word for a reason that we do not know is kept as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from interfaces.journal import Gap

UNEXPLAINED = "unexplained"
ACKED_BEFORE = "acked-before"
DAMAGE = "damage"
DISK = "disk"
RESTORE = "restore"
RETENTION = "retention"
"""Cloudly had them: the only reason that is not a loss."""

WORDS = {
    "space": "dropped on the device for space, before Cloudly had them",
    "age": "dropped on the device for their age, before Cloudly had them",
    ACKED_BEFORE: "trimmed on the device after Cloudly had them; Cloudly was restored from a backup since",
    DAMAGE: "unreadable on the device",
    DISK: "lost with the device's disk, or with the end of its journal",
    RESTORE: "lost on the device: its data went on from an earlier state, a backup or a copy",
    RETENTION: "let go by Cloudly, which had them for longer than it was set to keep facts",
    UNEXPLAINED: "nobody knows why",
}
NEVER_ACKED = frozenset({"space", "age"})
"""Reasons that say that Cloudly did not have it, as far as the device had heard."""
MOST_COUNTED = 2**53


@dataclass(frozen=True, slots=True)
class Missing:
    """A range that Cloudly has not and will not get."""

    first_seq: int
    last_seq: int
    why: str
    kinds: dict[str, int] = field(default_factory=dict)
    since_ms: int | None = None
    until_ms: int | None = None
    last_hash: bytes | None = None
    """Of the fact at `last_seq`, by the device's word: what the next fact is chained to."""
    told: bool = True
    """The device itself said that it has these no more."""


def words(why: str) -> str:
    """A reason in words; one that we do not know is shown as it came."""
    return WORDS.get(why, why)


def explain(
    first: int, last: int, told: Iterable[Gap], last_hash: bytes | None = None
) -> tuple[Missing, ...]:
    """The whole range `first..last`, in order, each part with what the device told of it."""
    parts = list(_parts(first, last, told))
    if parts and last_hash is not None:
        parts[-1] = replace(parts[-1], last_hash=last_hash)
    return tuple(parts)


def _parts(first: int, last: int, told: Iterable[Gap]) -> Iterator[Missing]:
    at = first
    for gap in sorted(told, key=lambda one: one.first_seq):
        begins, ends = max(gap.first_seq, at), min(gap.last_seq, last)
        if begins > ends:
            continue
        if begins > at:
            yield Missing(at, begins - 1, UNEXPLAINED, told=False)
        yield _told(gap, begins, ends)
        at = ends + 1
    if at <= last:
        yield Missing(at, last, UNEXPLAINED, told=False)


def _told(gap: Gap, first: int, last: int) -> Missing:
    """The device's words for a part; how many of which kind is known of the whole only."""
    whole = (first, last) == (gap.first_seq, gap.last_seq)
    kinds = {kind: n for kind, n in gap.kinds.items() if 0 < n <= MOST_COUNTED} if whole else {}
    return Missing(first, last, gap.why, kinds, gap.since_ms, gap.until_ms)


def beside(acked: int, told: Iterable[Gap]) -> tuple[Missing, ...]:
    """What a device dropped before it heard that Cloudly had it, where Cloudly has facts of these numbers.

    They may be its own (an answer was lost) or another writer's: what it dropped can no longer be compared.
    """
    return tuple(
        _told(gap, gap.first_seq, min(gap.last_seq, acked))
        for gap in told
        if gap.first_seq <= acked and gap.why in NEVER_ACKED
    )


def without(first: int, last: int, known: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """`first..last` without the ranges that are accounted for."""
    left, at = [], first
    for begins, ends in sorted(known):
        if begins > at and at <= last:
            left.append((at, min(begins - 1, last)))
        at = max(at, ends + 1)
    if at <= last:
        left.append((at, last))
    return left
