"""Lives of a node's journal: why one began, and what of the one before it is lost. Pure.

Rules:
- The device says it in the first fact of an epoch (`epoch-began`, a note in the core lane); until it did, and where
  it never does, what Cloudly heard of and never got is lost with the disk.
- Everything between Cloudly's ack and the furthest head is carried over into the next epoch, or is a gap.
- Where another writer's facts are at Cloudly under the same numbers, what the device lost of its own is no gap in them:
  it is told of with the epoch that the device went on in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from cloudly.batch import Batch
from cloudly.gaps import ACKED_BEFORE, DAMAGE, DISK, RESTORE, UNEXPLAINED, Missing, without
from cloudly.reports import load, mapping, text, whole
from interfaces.journal import Lane

STREAM = "epoch/1"
KIND = "epoch-began"

FIRST = "first"
ENROLLED = "enrolled"
UNANNOUNCED = "unannounced"

WORDS = {
    FIRST: "the node's first journal",
    ENROLLED: "the device enrolled anew with a fresh journal: it was flashed again, or lost its data",
    UNANNOUNCED: "the device began a new journal and did not say why",
    "salvaged": "the journal was damaged; what could be read was carried over",
    "tail-lost": "the end of the journal was lost on the device, so it went on in a new one",
    "forked": "the journal on the device was another one than Cloudly had, so it went on in a new one",
    "fenced": "another device had spoken as this node; this one enrolled anew and went on in a new journal",
}
LOST_BY = {"salvaged": DAMAGE}
"""What lost ranges are called, by why the epoch began; DISK else."""
GONE_BY = {"forked": RESTORE, "restored": RESTORE}
"""What facts are called that Cloudly heard of and the device never had; DISK else."""
BRANCHED = {"forked", "fenced", "restored"}
"""Why an epoch began after which another writer's facts may be at Cloudly under the numbers of the device's own."""
MOST_RANGES = 1000
MOST_BEFORE = 100
MOST_KINDS = 100
MOST_SEQ = 2**53


@dataclass(frozen=True, slots=True)
class LaneBefore:
    """What the device says of one lane of the epoch before."""

    head: int = 0
    hash: bytes | None = None
    acked: int = 0
    carried: tuple[int, int] | None = None
    lost: tuple[tuple[int, int], ...] = ()
    dropped: tuple[Missing, ...] = ()
    """The parts of `lost` that the device had dropped itself."""


@dataclass(frozen=True, slots=True)
class Began:
    """An `epoch-began` note, as far as it can be understood."""

    why: str
    predecessor: str
    problem: str
    kept_in: str
    lanes: Mapping[str, LaneBefore] = field(default_factory=dict)
    carried: Mapping[str, int] = field(default_factory=dict)
    """Per lane, up to which seq of the new epoch the facts are copies."""
    known_epoch: str = ""
    known: Mapping[str, int] = field(default_factory=dict)
    """How far each lane of that epoch had come, by what the device had outside its data directory."""
    known_before: tuple[tuple[str, Mapping[str, int]], ...] = ()
    """The same of epochs before that one."""


def words(why: str) -> str:
    """Why an epoch began, in words; a word that we do not know is shown as it came."""
    return WORDS.get(why, why)


def began(batch: Batch) -> Began | None:
    """The note that opens an epoch, if this batch holds it.

    It is the core lane's first fact, or a line that was written again because that one had to go.
    """
    for fact in batch.events:
        event = fact.event
        if event is None or (event.stream, event.kind, event.dst) != (STREAM, KIND, ""):
            continue
        data = load(event.data)
        first = mapping(data.get("written")).get("seq", event.seq if batch.lane == Lane.CORE else 0)
        if first == 1:
            return read(data)
    return None


def read(data: Mapping[str, Any]) -> Began:
    """The note's data, tolerantly: it is a device's word."""
    lanes, carried = mapping(data.get("lanes")), mapping(data.get("carried"))
    known = mapping(data.get("known"))
    known_epoch, known_lanes = _known(known)
    before = known.get("before")
    return Began(
        why=(text(data.get("why")) or UNANNOUNCED)[:200],
        predecessor=(text(data.get("from")) or known_epoch)[:64],
        problem=(text(data.get("problem")) or "")[:2000],
        kept_in=(text(data.get("kept_in")) or "")[:200],
        lanes={lane.value: _lane(mapping(lanes.get(lane.value))) for lane in Lane},
        carried={lane.value: _seq(carried.get(lane.value)) for lane in Lane},
        known_epoch=known_epoch,
        known=known_lanes,
        known_before=tuple(
            _known(mapping(one))
            for one in (before[:MOST_BEFORE] if isinstance(before, list) else ())
        ),
    )


def _known(told: Mapping[str, Any]) -> tuple[str, Mapping[str, int]]:
    lanes = mapping(told.get("lanes"))
    return (text(told.get("epoch")) or "")[:64], {
        lane.value: _seq(lanes.get(lane.value)) for lane in Lane
    }


def _lane(told: Mapping[str, Any]) -> LaneBefore:
    lost = told.get("lost")
    ranges = (_range(one) for one in (lost[:MOST_RANGES] if isinstance(lost, list) else ()))
    gone = told.get("dropped")
    dropped = (
        _dropped(mapping(one)) for one in (gone[:MOST_RANGES] if isinstance(gone, list) else ())
    )
    return LaneBefore(
        head=_seq(told.get("head")),
        hash=_hash(told.get("hash")),
        acked=_seq(told.get("acked")),
        carried=_range(told.get("carried")),
        lost=tuple(one for one in ranges if one is not None),
        dropped=tuple(one for one in dropped if one is not None),
    )


def _hash(value: object) -> bytes | None:
    try:
        return bytes.fromhex(text(value) or "") or None
    except ValueError:
        return None


def _dropped(told: Mapping[str, Any]) -> Missing | None:
    """A range that the device dropped itself, with its words for it."""
    place, why = _range([told.get("first_seq"), told.get("last_seq")]), text(told.get("why"))
    if place is None or not why:
        return None
    kinds = {
        kind: number
        for kind, count in list(mapping(told.get("kinds")).items())[:MOST_KINDS]
        if (number := _seq(count))
    }
    since, until = _moment(told.get("since_ms")), _moment(told.get("until_ms"))
    return Missing(*place, why[:200], kinds, since, until)


def _moment(value: object) -> int | None:
    moment = whole(value)
    return moment if moment is not None and abs(moment) <= MOST_SEQ else None


def _seq(value: object) -> int:
    seq = whole(value)
    return seq if seq is not None and 0 <= seq <= MOST_SEQ else 0


def _range(value: object) -> tuple[int, int] | None:
    if not isinstance(value, list) or len(value) != 2:
        return None
    first, last = _seq(value[0]), _seq(value[1])
    return (first, last) if 1 <= first <= last else None


def left_behind(ack: int, heard: int) -> tuple[Missing, ...]:
    """What is lost of a lane of an epoch that ended without a word."""
    return (Missing(ack + 1, heard, DISK, told=False),) if heard > ack else ()


def lost_of(lane: LaneBefore, note: Began, *, ack: int, heard: int) -> tuple[Missing, ...]:
    """What is lost of a lane of the epoch before, by the note of its successor. In order, without overlap."""
    end = max(heard, lane.head)
    known: list[tuple[int, int]] = []
    claims = _in_turn(_lost(lane, note, ack + 1, end), known)
    if lane.carried is not None:
        known.append(lane.carried)
    claims += _claim(ack + 1, min(lane.acked, end), ACKED_BEFORE, known)
    claims += _claim(max(lane.head, ack) + 1, end, GONE_BY.get(note.why, DISK), known)
    claims += _claim(ack + 1, end, UNEXPLAINED, known)
    return tuple(sorted(claims, key=lambda one: one.first_seq))


def _claim(first: int, last: int, why: str, known: list[tuple[int, int]]) -> list[Missing]:
    """What is left of that range for this reason; it is accounted for from then on."""
    left = without(first, last, known) if first <= last else []
    known += left
    return [Missing(begins, ends, why, told=why != UNEXPLAINED) for begins, ends in left]


def lost_of_branch(lane: LaneBefore, note: Began, *, ack: int) -> tuple[Missing, ...]:
    """What the device lost of its own facts where Cloudly has another writer's. In order, without overlap."""
    claims = _in_turn(_lost(lane, note, lane.acked + 1, min(ack, lane.head)), [])
    return tuple(sorted(claims, key=lambda one: one.first_seq))


def _lost(lane: LaneBefore, note: Began, first: int, last: int) -> list[Missing]:
    """What the device says that it lost from here to there; what it dropped itself has its own words."""
    lost = [Missing(begins, ends, LOST_BY.get(note.why, DISK)) for begins, ends in lane.lost]
    clipped = []
    for one in (*lane.dropped, *lost):
        begins, ends = max(one.first_seq, first), min(one.last_seq, last)
        whole_range = (begins, ends) == (one.first_seq, one.last_seq)
        if begins <= ends:
            kinds = one.kinds if whole_range else {}
            clipped.append(replace(one, first_seq=begins, last_seq=ends, kinds=kinds))
    return clipped


def _in_turn(claims: Iterable[Missing], known: list[tuple[int, int]]) -> list[Missing]:
    """Without overlap: where two ranges meet, the first one of them holds. `known` grows by all of them."""
    kept: list[Missing] = []
    for one in claims:
        left = without(one.first_seq, one.last_seq, known)
        known += left
        kinds = one.kinds if left == [(one.first_seq, one.last_seq)] else {}
        kept += [replace(one, first_seq=at, last_seq=to, kinds=kinds) for at, to in left]
    return kept
