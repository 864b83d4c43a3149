"""What heartbeats leave in memory for a while: when nodes were last seen, their volatile values, the heads they name.

Rules:
- It goes to the database every `PRESENCE_EVERY_S` (`saving`), and stays in memory until that is durable.
- Other servers hear the same nodes: what is newer in the database is not overwritten, and is what is shown.
- A head only ever goes further, whoever writes it.
- So many nodes are written in one transaction that nobody waits for long behind them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

from cloudly.store import heads, nodes, voices
from cloudly.store.heads import Heads
from cloudly.store.nodes import Beat
from cloudly.store.sql import Connection

PRESENCE_EVERY_S = 15.0
PRESENCE_LOOK_S = 1.0
"""How often it is asked whether that has passed, also at a server that is asked nothing."""
AT_ONCE = 1000
"""Nodes in one transaction."""

Seen = tuple[int, str]
"""When, and what was reported then."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some nodes, as they were when the writing began."""

    seen: Mapping[int, Seen]
    heads: Mapping[int, Heads]

    @property
    def nodes(self) -> list[int]:
        return sorted(self.seen.keys() | self.heads.keys())

    def write(self, db: Connection) -> None:
        nodes.save_presence(db, self.seen)
        heads.save_many(db, self.heads)


@dataclass(slots=True)
class Presence:
    seen: dict[int, Seen] = field(default_factory=dict)
    heads: dict[int, Heads] = field(default_factory=dict)

    def note(self, heartbeat: Beat) -> None:
        """One that changed nothing."""
        node, told = heartbeat.caller.node, heartbeat.heads
        self.seen[node] = (heartbeat.at_ms, heartbeat.reported)
        if told is None:
            return
        known = self.heads.get(node)
        if known is None or known.epoch != told.epoch:
            known = self.heads[node] = Heads(told.epoch)
        known.note(told.lanes)

    def wrote(self, node: int, at_ms: int) -> None:
        """A heartbeat of then is in the database: an older one need not go there any more."""
        if node in self.seen and self.seen[node][0] <= at_ms:
            del self.seen[node]

    def last(self, node: int) -> voices.Last | None:
        seen = self.seen.get(node)
        return None if seen is None else voices.Last(*seen)

    def parts(self) -> Iterator[Part]:
        """All of it, as it is now."""
        numbers = iter(list(self.seen.keys() | self.heads.keys()))
        while some := list(islice(numbers, AT_ONCE)):
            yield Part(
                {node: self.seen[node] for node in some if node in self.seen},
                {node: self.heads[node].copy() for node in some if node in self.heads},
            )

    def saved(self, part: Part) -> None:
        """That is durable; what came meanwhile stays."""
        for node, seen in part.seen.items():
            if self.seen.get(node) is seen:
                del self.seen[node]
        for node, known in part.heads.items():
            if self.heads.get(node) == known:
                del self.heads[node]
