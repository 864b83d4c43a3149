"""What the real journal made durable, written down beside it: the truth that a trace is judged by."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from journal.facts import Fact
from journal.journal import Journal
from journal.reader import open_reader

End = tuple[str, str, str]
"""Epoch, lane and hash of a fact."""
Content = tuple[str, str, str, str, int, str, int, str]


@dataclass(slots=True)
class Written:
    """One fact that a device wrote."""

    device: str
    epoch: str
    lane: str
    seq: int
    hash: str
    prev: str
    content: Content
    durable: bool = False
    endangered: bool = False
    """Something befell the disk since: only then nobody may know of it any more."""


def content_of(values: Any) -> Content:
    """What a fact says wherever it stands, as a Fact, an event or evidence."""
    if isinstance(values, dict) and values["kind"] == "salvaged":
        kept = json.loads(values["data"])
        values = kept if "data" in kept else values
    get: Callable[[str], Any] = (
        values.__getitem__ if isinstance(values, dict) else partial(getattr, values)
    )
    return (
        get("stream"), get("kind"), get("src"), get("dst"),
        get("at_ms"), get("boot_id"), get("mono_ms"), get("data"),
    )  # fmt: skip


@dataclass
class Ledger:
    """Of all devices of one trace."""

    written: list[Written] = field(default_factory=list)
    copies: dict[Content, list[tuple[str, str, int]]] = field(default_factory=dict)
    """Epoch, lane and seq of what a new epoch took over from the one before it."""
    gone: set[Path] = field(default_factory=set)
    """Disks that lost their power: what a task still writes there while it is stopped, nobody wrote."""

    def of(self, device: str) -> Callable[[Journal, Fact, bool], None]:
        """Takes down what this device writes; a synced fact makes all before it in its journal durable."""
        pending: list[Written] = []

        def take(journal: Journal, fact: Fact, soon: bool) -> None:  # noqa: FBT001
            one = Written(
                device,
                journal.epoch,
                fact.lane.value,
                fact.seq,
                fact.hash.hex(),
                journal.prev_hash(fact.lane, fact.seq).hex(),
                content_of(fact),
            )
            self.written.append(one)
            pending.append(one)
            if not soon:
                self.settle(pending)

        return take

    def copied(self, home: Path) -> None:
        """A new epoch has begun there."""
        with open_reader(home) as reader:
            for fact in reader.facts():
                place = (reader.epoch, fact.lane.value, fact.seq)
                self.copies.setdefault(content_of(fact._asdict()), []).append(place)

    def endanger(self, device: str) -> None:
        for one in self.written:
            one.endangered |= one.device == device

    def behind(self, ends: Iterable[End]) -> set[End]:
        """All that is known of by who knows these ends: the facts that they are chained to."""
        by_end = {(one.epoch, one.lane, one.hash): one for one in self.written}
        known: set[End] = set()
        for end in ends:
            while end in by_end and end not in known:
                known.add(end)
                end = (end[0], end[1], by_end[end].prev)  # noqa: PLW2901 - one step back
        return known

    @staticmethod
    def settle(pending: list[Written]) -> None:
        for one in pending:
            one.durable = True
        pending.clear()


class Watched(Journal):
    """The real journal; after each commit its fact is taken down. `watch` is set by the trace before it opens one."""

    watch: Callable[[Journal, Fact, bool], None] = staticmethod(lambda *_: None)
    taker: Callable[[Journal, Fact, bool], None] | None = None

    def _write(self, fact: Fact, **how: Any) -> None:
        super()._write(fact, **how)
        self.watch(self, fact, how["soon"])
