"""Journal shipping: the device's facts, in order, once each. `POST /baseos/v1/nodes/journal`.

A journal has two lanes with sequences and hash chains of their own: `core` (transitions) and `log` (heartbeats and
progress lines, bounded). An event's `data` travels as the exact text that was hashed. Cloudly owns the cursor; the
device trims only what is acked, and what it had to drop before that leaves a `Gap`.
"""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from interfaces.wire import Hex32, Id, Name, Wire

MAX_BATCH_EVENTS = 200
MAX_BATCH_BYTES = 262_144
MAX_GAPS = 32


class Lane(StrEnum):
    """Which of the journal's two sequences."""

    CORE = "core"
    LOG = "log"


class Gap(Wire):
    """A range of a lane that Cloudly will never get, and what is known of it.

    `why`: `space` or `age` (dropped on the device before the ack), `acked-before` (trimmed after an ack of an earlier
    life of Cloudly, which was restored since), `damage` (unreadable on the device), `disk` (lost with the disk, or the
    tail of it), `restore` (the device's data was restored from a backup), `unexplained` (Cloudly's word, when the
    device gives none). A word that the reader does not know is shown as it is.
    """

    first_seq: int = Field(ge=1, le=2**53)
    last_seq: int = Field(ge=1, le=2**53)
    why: Name
    kinds: dict[Name, int] = Field(default_factory=dict, max_length=50)
    """How many facts of which kind, as far as known."""
    since_ms: int | None = Field(default=None, ge=-(2**53), le=2**53)
    until_ms: int | None = Field(default=None, ge=-(2**53), le=2**53)
    """By the device's wall clock."""


class JournalEvent(Wire):
    """One fact as written on the device. `hash` chains it to its predecessor in the same lane (`journal/chain.py`)."""

    seq: int = Field(ge=1, le=2**53)
    """Position in its lane, without holes."""
    n: int = Field(ge=1, le=2**53)
    """Position among all facts of the journal, both lanes: the order to show them in."""
    stream: str = Field(min_length=1, max_length=100)
    """`<machine>/<attempt>`, for example `app-update/12`."""
    kind: str = Field(min_length=1, max_length=100)
    src: str = Field(max_length=100)
    dst: str = Field(max_length=100)
    at_ms: int
    """The device's wall clock: for people, never for order."""
    boot_id: str = Field(max_length=64)
    mono_ms: int
    """Milliseconds since that boot."""
    skew_ms: int | None = Field(default=None, ge=-(2**53), le=2**53)
    """What to add to `at_ms` for the true time; None: nobody has told the device the time since that boot."""
    data: str = Field(max_length=65_536)
    """JSON object, the exact text that was hashed."""
    hash: Hex32


class Head(Wire):
    """Where a lane ends."""

    seq: int = Field(ge=0, le=2**53)
    hash: Hex32


class JournalBatch(Wire):
    """Consecutive events of one lane."""

    incarnation: Id | None = None
    """The incarnation of Cloudly that the device last heard from."""
    epoch: Id
    lane: Lane
    prev_hash: Hex32
    """Hash of the event before the first one; the chain's genesis when the first is seq 1."""
    events: tuple[JournalEvent, ...] = Field(max_length=MAX_BATCH_EVENTS)
    head: Head
    oldest: int = Field(ge=1)
    """The oldest seq that the device still has in this lane."""
    writer: Id | None = None
    """Which opening of the journal speaks: two that speak in turn are two devices with one identity."""
    gaps: tuple[Gap, ...] = Field(default=(), max_length=MAX_GAPS)
    """What the device knows of ranges between Cloudly's ack and the first event."""


class Ack(Wire):
    """Everything of this lane up to and including `seq` is durable in Cloudly. seq 0: nothing yet."""

    epoch: Id
    lane: Lane
    seq: int = Field(ge=0, le=2**53)
    hash: Hex32


class JournalAnswer(Wire):
    """200: what Cloudly has now, and how to go on."""

    incarnation: Id
    ack: Ack
    max_bytes: int = Field(default=MAX_BATCH_BYTES, gt=0)
    next_after_s: float = Field(default=0.0, ge=0)
    """Load shedding: do not send the next batch before this many seconds have passed."""
