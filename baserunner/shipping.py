"""Shipping the journal to Cloudly: in order, each fact once, nothing trimmed before its ack.

Rules:
- Only what is durable is shipped: a fact that a power cut could take back must not be known to Cloudly.
- Cloudly owns the cursor. On a gap the device goes back to what Cloudly has. Where Cloudly has facts that this journal
  has not, or others, the journal's tail was lost or a copy of it went on elsewhere: its epoch is over.
- 413 halves the batch and never drops.
- An answer after which Cloudly has no more than before is a problem, so that the next try is later and later.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from pydantic import SecretStr

from baserunner.heartbeat.steps import NODE_GONE
from baserunner.logs import Changes
from baserunner.neighbours.cloudly import Cloudly, OutOfStep
from baserunner.pace import retry_s
from baserunner.problems import EpochOver, Malformed, NeighbourProblem, Refused, Unreachable
from baserunner.retention import retain
from baserunner.shared import Shared
from interfaces.heartbeat import HeartbeatAnswer
from interfaces.journal import (
    MAX_BATCH_BYTES,
    MAX_BATCH_EVENTS,
    MAX_GAPS,
    Ack,
    Gap,
    Head,
    JournalBatch,
    JournalEvent,
)
from interfaces.journal import Lane as WireLane
from journal.facts import Fact, Lane
from journal.journal import Journal
from journal.problems import Fork

log = logging.getLogger(__name__)

SHIP_EVERY_S = 300.0
"""How long heartbeats and progress lines may wait; transitions are shipped at once."""
WORTH_SAYING = 5
"""So many tries in a row without an answer are said in the report; fewer are weather."""
MAX_REST_S = 3600.0
"""Longer than this nobody's wish keeps the journal back; the same cap as for Retry-After."""
EVENT_OVERHEAD_BYTES = 400
"""What an event's other fields take on the wire, generously."""


@dataclass(slots=True)
class Shipper:
    """The device's side of the contract, for one run."""

    journal: Journal
    cloudly: Cloudly
    writer: str
    incarnation: str | None = None
    _max_events: int = MAX_BATCH_EVENTS
    _max_bytes: int = MAX_BATCH_BYTES

    async def ship(self, node_token: SecretStr) -> float:
        """Ship all that is durable. Returns seconds to leave Cloudly alone. Raises NeighbourProblem, EpochOver."""
        rest_s = 0.0
        for lane in (Lane.CORE, Lane.LOG):
            while self.pending(lane):
                rest_s = await self._ship_batch(lane, node_token)
                if rest_s > 0:
                    return rest_s
        return rest_s

    def acked(self, ack: Ack) -> None:
        """Take note of what Cloudly has. Raises EpochOver where it has other facts than this journal, or more."""
        if ack.epoch != self.journal.epoch:
            return
        self.must_be_ours(ack)
        lane, theirs = Lane(ack.lane.value), bytes.fromhex(ack.hash)
        if self.journal.acked(lane) == (ack.seq, theirs):
            return
        try:
            self.journal.ack(lane, ack.seq, theirs)
        except Fork as fork:
            raise EpochOver("forked", str(fork)) from None

    def must_be_ours(self, end: Ack) -> None:
        """Raises EpochOver when this lane was further, or elsewhere. `end`: what Cloudly has, or heard of."""
        if end.epoch != self.journal.epoch:
            return
        lane = Lane(end.lane.value)
        head = self.journal.head(lane)
        if end.seq > head.seq:
            seen = f"the {lane} lane ends at {head.seq}, and Cloudly knows of {end.seq}"
            raise EpochOver("tail-lost", f"{seen}: its tail was lost")
        ours = self.journal.hash_at(lane, end.seq)
        if end.seq > 0 and ours is not None and ours.hex() != end.hash:
            raise EpochOver("forked", f"{lane} {end.seq} is another fact at Cloudly")

    def pending(self, lane: Lane) -> bool:
        """Whether this lane has durable facts that Cloudly has not acked."""
        return self.journal.durable_head(lane).seq > self.journal.acked(lane)[0]

    async def _ship_batch(self, lane: Lane, node_token: SecretStr) -> float:
        batch = self._batch(lane)
        before = self.journal.acked(lane)
        try:
            answer = await self.cloudly.ship(batch, node_token)
        except OutOfStep as out_of_step:
            self._step_back(lane, out_of_step)
            self._must_have_moved(lane, before)
            return 1.0
        except Refused as refused:
            if refused.status != 413 or self._max_events == 1:
                raise
            self._max_events = max(self._max_events // 2, 1)
            self._max_bytes = max(self._max_bytes // 2, 1)
            return 0.0
        self.incarnation = answer.incarnation
        self._max_bytes = min(answer.max_bytes, MAX_BATCH_BYTES)
        self.acked(answer.ack)
        self._must_have_moved(lane, before)
        return min(answer.next_after_s, MAX_REST_S)

    def _must_have_moved(self, lane: Lane, before: tuple[int, bytes]) -> None:
        """Raises Malformed when an answer has left everything as it was: asking again at once would go on for ever."""
        if self.journal.acked(lane) == before:
            raise Malformed(
                f"Cloudly answered, and still has the {lane} lane up to {before[0]} only"
            )

    def _batch(self, lane: Lane) -> JournalBatch:
        journal = self.journal
        first = max(journal.acked(lane)[0] + 1, journal.oldest(lane))
        last = journal.durable_head(lane)
        events: list[JournalEvent] = []
        size_bytes = 0
        for fact in journal.facts(lane=lane, after=first - 1, limit=self._max_events):
            size_bytes += len(fact.data.encode()) + EVENT_OVERHEAD_BYTES
            if fact.seq > last.seq or (events and size_bytes > self._max_bytes):
                break
            events.append(to_event(fact))
        return JournalBatch(
            incarnation=self.incarnation,
            epoch=journal.epoch,
            lane=WireLane(lane.value),
            prev_hash=journal.prev_hash(lane, first).hex(),
            events=tuple(events),
            head=Head(seq=last.seq, hash=last.hash.hex()),
            oldest=journal.oldest(lane),
            writer=self.writer,
            gaps=self._gaps(lane, first),
        )

    def _gaps(self, lane: Lane, first: int) -> tuple[Gap, ...]:
        """What this device knows of the facts that Cloudly has not and will never get, before `first`."""
        at = self.journal.acked(lane).seq + 1
        gaps: list[Gap] = []
        for stone in self.journal.tombstones(lane, after=at - 1):
            gaps += _acked_before(at, stone.first_seq - 1)
            gaps.append(
                Gap(
                    first_seq=stone.first_seq,  # also before the ack: then not all that Cloudly has is ours
                    last_seq=stone.last_seq,
                    why=stone.why,
                    kinds=stone.kinds,
                    since_ms=stone.since_ms,
                    until_ms=stone.until_ms,
                )
            )
            at = stone.last_seq + 1
        return tuple([*gaps, *_acked_before(at, first - 1)][:MAX_GAPS])

    def _step_back(self, lane: Lane, out_of_step: OutOfStep) -> None:
        ack = out_of_step.ack
        if ack is None or out_of_step.code == "fenced":
            raise out_of_step
        self.acked(ack)
        if out_of_step.code == "fork":
            raise EpochOver("forked", str(out_of_step))
        log.info("%s lane: going on after %d, which is what Cloudly has", lane, ack.seq)


class Shipping:
    """The task: ships when a transition rings, and now and then."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._shipper = Shipper(shared.journal, shared.near.cloudly, shared.writer)
        self._trouble = Changes()
        self._not_shipped = ""

    @property
    def troubles(self) -> tuple[str, ...]:
        """Why Cloudly does not get the journal, in words."""
        return (self._not_shipped,) if self._not_shipped else ()

    def pending(self, lane: Lane) -> bool:
        return self._shipper.pending(lane)

    def heard(self, answer: HeartbeatAnswer) -> None:
        """What Cloudly says of our journal in a heartbeat's answer. Raises EpochOver."""
        for end in answer.heard:
            self._shipper.must_be_ours(end)
        for ack in answer.acks:
            self._shipper.acked(ack)

    async def run(self) -> None:
        misses, shared = 0, self._shared
        while True:
            await shared.ship_alarm.wait(SHIP_EVERY_S)
            shared.journal.sync()
            retain(shared.journal)
            if shared.node_token is None:
                continue
            node_token = shared.node_token
            try:
                rest_s = await self._shipper.ship(node_token)
                self._trouble.tell(logging.INFO, log, "")
                misses, self._not_shipped = 0, ""
                retain(shared.journal)
            except NeighbourProblem as problem:
                if isinstance(problem, Refused) and shared.node_token not in {None, node_token}:
                    shared.ship_alarm.ring()  # that token was replaced meanwhile: ask with the new one
                    continue
                misses += 1
                rest_s = self._after(problem, misses)
            if rest_s > 0:
                shared.ship_alarm.ring()
                await shared.near.world.sleep(rest_s)

    def _after(self, problem: NeighbourProblem, misses: int) -> float:
        """Seconds until the next try."""
        why = f"the journal is not shipped for now: {problem}"
        self._trouble.tell(logging.WARNING, log, why)
        if isinstance(problem, Refused) or misses >= WORTH_SAYING:
            self._not_shipped = why
        if isinstance(problem, Refused) and problem.code in NODE_GONE:
            self._shared.want_beat()
        asked_s = problem.retry_after_s if isinstance(problem, Unreachable) else None
        return retry_s(misses, self._shared.near.world, asked_s=asked_s)


def _acked_before(first: int, last: int) -> list[Gap]:
    """Trimmed after an ack, so Cloudly had it: in an earlier life, before it was restored."""
    return [Gap(first_seq=first, last_seq=last, why="acked-before")] if first <= last else []


def to_event(fact: Fact) -> JournalEvent:
    """A fact as it travels."""
    return JournalEvent(
        seq=fact.seq,
        n=fact.n,
        stream=fact.stream,
        kind=fact.kind,
        src=fact.src,
        dst=fact.dst,
        at_ms=fact.at_ms,
        boot_id=fact.boot_id,
        mono_ms=fact.mono_ms,
        skew_ms=fact.skew_ms,
        data=fact.data,
        hash=fact.hash.hex(),
    )
