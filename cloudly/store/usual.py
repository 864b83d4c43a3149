"""What most requests of nodes are: a heartbeat of who spoke before, and the next facts of a lane. Pure.

Rules:
- Usual is what needs no judgement: the same writer, the same epoch, facts that continue what is here, nothing that
  moves a deployment or answers a diagnosis. An engine takes many of these in a few sentences; what is written is what
  the decision's own function (`nodes.beat`, `journals.ingest`) would have written.
- When in doubt it is not usual.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cloudly.batch import Batch, Shipped
from cloudly.deployments import MACHINE
from cloudly.epochs import began
from cloudly.ingest import Heard, Verdict, judge
from cloudly.problems import Refused
from cloudly.reports import load
from cloudly.store import diagnoses
from cloudly.store.heads import Heads, Position
from cloudly.store.nodes import Beat


@dataclass(frozen=True, slots=True)
class UsualBeat:
    """A heartbeat with news."""

    heartbeat: Beat
    known: Heads | None
    """Heads that are only in memory."""
    taken: Callable[[], None]
    """Called when it was decided to take it."""

    def heads(self) -> dict[str, Heard] | None:
        """The furthest head of each lane; None: they are not all of the one writer and epoch."""
        beat = self.heartbeat
        found: dict[str, Heard] = {}
        for told in (self.known, beat.heads):
            if told is None:
                continue
            if beat.voice is None or told.epoch != beat.voice.epoch:
                return None
            for lane, head in told.lanes.items():
                if head.writer != beat.voice.writer:
                    return None
                before = found.get(lane)
                if head.seq and (before is None or head.seq > before.seq):
                    found[lane] = head
        return found


@dataclass(frozen=True, slots=True)
class UsualBatch:
    """The next facts of a lane."""

    node: int
    batch: Batch
    known: Heads | None
    now_ms: int

    @property
    def is_plain(self) -> bool:
        """Whether no fact of it does more than to be shown."""
        return began(self.batch) is None and not any(map(_acts, self.batch.events))

    def verdict(self, position: Position) -> Verdict | None:
        """What is new of facts that continue or repeat what is here; None: it is not usual."""
        heard = self._heard(position)
        if heard is None:
            return None

        def hash_at(_seq: int) -> bytes | None:
            raise _AskedForMoreError

        try:
            found = judge(self.batch, position.ack, hash_at, heard)
        except (Refused, _AskedForMoreError):
            return None
        return None if found.missing or found.beside else found

    def head_after(self, position: Position) -> Heard:
        """The furthest head that was ever heard of, this batch's included."""
        batch = self.batch
        heads = [
            Heard(batch.head_seq, batch.head_hash, batch.writer),
            *(self._heard(position) or ()),
        ]
        return max(heads, key=lambda one: one.seq)

    def _heard(self, position: Position) -> tuple[Heard, ...] | None:
        """Heads beyond what is here, all of this writer; None: another one's is among them."""
        known = None
        if self.known is not None and self.known.epoch == self.batch.epoch:
            known = self.known.lanes.get(self.batch.lane)
        heads = (*position.unreached, *(() if known is None else (known,)))
        if position.prior is not None or any(one.writer != self.batch.writer for one in heads):
            return None
        return tuple(one for one in heads if one.seq > position.ack.seq)


def _acts(fact: Shipped) -> bool:
    event = fact.event
    return event is not None and event.stream.startswith((MACHINE, diagnoses.MACHINE))


class _AskedForMoreError(Exception):
    """The verdict needs facts that were not brought along."""


def reason_of(data: str) -> str:
    return str(load(data).get("reason") or "")[:500]
