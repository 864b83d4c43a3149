"""What is told of leases: read from the journal, in words, for who asks here and for Cloudly."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from baserunner.locks.machine import CHART, MACHINE, Lease
from interfaces.why import printable, when
from journal.facts import StreamInfo
from journal.problems import Parked
from journal.reading import Reading
from journal.recall import Stream, recall

NAMED = 3
"""So many holders are named in a sentence."""
MAX_REASON = 200
"""Of a holder's reason in a sentence; `baserunner locks` has the whole of it."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A lease of a newer agent, which this one cannot read: without a renewal none lasts longer than the longest."""

    stream: str
    boot_id: str
    mono_ms: int
    """Of its newest fact."""

    def left_s(self, boot_id: str, mono_s: float, started_s: float) -> float:
        """`started_s`: when this agent started; from then on it counts in another boot than its own."""
        from interfaces.local import (
            MOST_TTL_S,  # and with it pydantic, which a command need not load
        )

        from_s = self.mono_ms / 1000 if boot_id == self.boot_id else started_s
        return max(0.0, from_s + MOST_TTL_S - mono_s)


def open_leases(journal: Reading) -> tuple[list[Stream[Lease]], list[Unreadable]]:
    """Those that have no end in the journal, the oldest first."""
    found: list[Stream[Lease]] = []
    unreadable = []
    for info in journal.open_streams():
        if info.name.partition("/")[0] != CHART.name:
            continue
        try:
            found.append(recall(journal, info.name, MACHINE))
        except Parked:
            unreadable.append(_unreadable(info))
    return [stream for stream in found if stream.state == "held"], unreadable


def ended_leases(journal: Reading, newest: int) -> list[Stream[Lease]]:
    """The last ones that have ended, the oldest first; those that cannot be read are left out."""
    found = []
    for info in journal.streams(CHART.name, newest=newest):
        if not info.ended:
            continue
        try:
            found.append(recall(journal, info.name, MACHINE))
        except Parked:
            continue
    return found


def holders(leases: Iterable[Lease]) -> str:
    """Who holds updates up, why, since when and until when; empty: nobody."""
    told = [in_words(lease) for lease in leases]
    more = [f"and {len(told) - NAMED} more"] if len(told) > NAMED else []
    return "; ".join(told[:NAMED] + more)


def in_words(lease: Lease) -> str:
    return printable(
        f"{lease.owner} holds an update lock since {when(lease.since_ms)} until"
        f" {when(lease.until_ms)}: {lease.holds_for[:MAX_REASON]}"
    )


def _unreadable(info: StreamInfo) -> Unreadable:
    last = info.last
    return Unreadable(info.name, last.boot_id if last else "", last.mono_ms if last else 0)
