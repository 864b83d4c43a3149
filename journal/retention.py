"""How the journal forgets, a bounded step at a time: what goes, in which order, and what stays in its place.

Order
1. log facts that Cloudly has, beyond the newest `keep_log`
2. transitions that Cloudly has, of ended streams, beyond the newest `keep_core`
and only when they are too old or the journal is too large:
3. the rest of what Cloudly has, log before core
4. log facts that Cloudly has not; of the last failed attempts the last lines are written again, so they never go, and
   neither does what an epoch says of its beginning
5. transitions that Cloudly has not, of ended streams, and never for their age

Rules
- A lane is forgotten from its beginning on, so that its chain hangs on one base. Open streams of core stop it.
- In one transaction: the facts go, a summary of log facts stays, a stream whose beginning went keeps state and belief,
  and what Cloudly never had leaves a tombstone.
- By age goes only what is known to be old: a device that boots in 1970 or 2080 must not lose its journal for it.

Deleting 500 for 500 written costs 1.09 x the bytes of not deleting, VACUUM 1.66 x (journal note, 4.7). See ADR 0010.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from journal.facts import Fact, Lane, Stamp, StreamInfo, split_name
from journal.reading import Reading
from journal.summary import KIND, STREAM, summaries
from journal.tombstone import Tombstone, bury, fewer

Freeze = Callable[[StreamInfo, list[Fact]], str | None]
"""What a stream believes after the facts of it that go, as JSON; None: this program cannot read it."""
BEGAN = "epoch-began"
"""Why an epoch began: a line that Cloudly gets, whatever else goes before it had it."""
UNKNOWN = "null"
"""The belief of a stream that was trimmed by a program which could not read it: it is parked."""
Note = tuple[str, str, dict[str, Any]]
"""Stream, kind and data of a line to write."""

DAY_MS = 86_400_000
NEAR = 1_000
"""So many facts further an attempt's other lines are looked for."""
STEP_BYTES = 256 * 1024
"""Data that one step deletes or writes again at most: 64 pages, a quarter of the WAL's working size."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a journal may take. The defaults suit a device with a few gigabytes of flash."""

    max_bytes: int = 32 << 20
    max_age_ms: int = 90 * DAY_MS
    keep_log: int = 2_000
    """Newest log facts; a day's worth of heartbeats and progress, for whoever debugs there."""
    keep_core: int = 5_000
    """Newest transitions: some hundred attempts."""
    keep_attempts: int = 20
    """Newest attempts of each machine, whose names, states and beliefs stay when their facts have gone."""
    progress: frozenset[str] = frozenset()
    """Kinds of lines that go before other lines."""
    failed: frozenset[str] = frozenset()
    """States that a failed attempt ends in."""
    failed_attempts: int = 5
    failure_lines: int = 20
    """Last lines of each of the last failed attempts; they are written again rather than dropped."""
    step: int = 500


@dataclass(frozen=True, slots=True)
class Retained:
    """What one step did."""

    forgotten: int = 0
    """Facts that went."""
    dropped: int = 0
    """Those of them that Cloudly never had."""
    freed_bytes: int = 0
    """Given back to the file system."""
    more: bool = False
    """Whether to call again soon: there was something to do."""


@dataclass(frozen=True, slots=True)
class Step:
    """The oldest facts of one lane, which go together."""

    lane: Lane
    going: list[Fact]
    acked: int
    why: str = ""
    """Why facts go that Cloudly never had: "space" or "age"."""
    notes: list[Note] = field(default_factory=list)
    """What is written for it."""
    again: frozenset[int] = frozenset()
    """Of what goes: lines that are among the notes again."""
    keep_attempts: int = 1

    @property
    def dropped(self) -> int:
        return sum(fact.seq > self.acked for fact in self.going)


def next_step(journal: Reading, limits: Limits, *, now: Stamp, used_bytes: int) -> Step | None:
    """What is to go next; None: nothing. `used_bytes`: what the journal's facts take of its file."""
    full = used_bytes > limits.max_bytes
    for lane, keep in ((Lane.LOG, limits.keep_log), (Lane.CORE, limits.keep_core)):
        if step := _beyond(journal, limits, lane, keep):
            return step
    for acked_only in (True, False):
        for lane in (Lane.LOG, Lane.CORE):
            if step := _pressed(journal, limits, lane, now=now, full=full, acked_only=acked_only):
                return step
    return None


def _beyond(journal: Reading, limits: Limits, lane: Lane, keep: int) -> Step | None:
    """Beyond the newest `keep`; it waits until half a step may go, so that a summary is worth its place."""
    base, acked = journal.base(lane).seq, journal.acked(lane).seq
    upto = min(acked, journal.head(lane).seq - keep, _barrier(journal, lane))
    if upto - base < max(2, limits.step // 2):
        return None
    return _worth(journal, limits, lane, upto, why="")


def _pressed(  # noqa: PLR0913 - what is too old or too much, and how far it may go
    journal: Reading, limits: Limits, lane: Lane, *, now: Stamp, full: bool, acked_only: bool
) -> Step | None:
    base, acked = journal.base(lane).seq, journal.acked(lane).seq
    upto = min(journal.head(lane).seq - 1, _barrier(journal, lane))
    if acked_only:
        upto = min(upto, acked)
    if not full:
        if lane is Lane.CORE and not acked_only:
            return None
        upto = min(upto, _too_old(journal, limits, lane, now))
    # What gets too old, gets it bit by bit: a summary for every two heartbeats would be no shorter than they were.
    least = max(2, limits.step // 2) if lane is Lane.LOG and not full else 1
    if upto - base < least:
        return None
    return _worth(journal, limits, lane, upto, why="" if acked_only else _why(full=full))


def _why(*, full: bool) -> str:
    return "space" if full else "age"


def _worth(journal: Reading, limits: Limits, lane: Lane, upto: int, *, why: str) -> Step | None:
    """A step towards `upto`; None when what must be written for it takes as much place as what goes.

    In a long lane it is taken all the same: behind the lines that are written again there is what may go.
    """
    going, acked = _oldest(journal, limits, lane, upto), journal.acked(lane).seq
    kept = [fact for fact in going if fact.kind == BEGAN and fact.seq > acked]
    if lane is Lane.CORE:
        notes = [(fact.stream, fact.kind, _written(fact)) for fact in kept]
        again = frozenset(fact.seq for fact in kept)
        return Step(lane, going, acked, why, notes, again, limits.keep_attempts)
    kept += _last_lines(journal, limits, going) if why else []
    again = frozenset(fact.seq for fact in kept)
    notes = _told(fact for fact in going if fact.seq not in again)
    notes += [(fact.stream, fact.kind, _written(fact)) for fact in kept]
    if 2 * len(notes) > len(going) and journal.head(lane).seq - going[-1].seq <= 2 * limits.step:
        return None
    return Step(lane, going, acked, why, notes, again, limits.keep_attempts)


def _oldest(journal: Reading, limits: Limits, lane: Lane, upto: int) -> list[Fact]:
    """At most a step of facts, and hardly more of data than a step may move."""
    going: list[Fact] = []
    size_bytes = 0
    for page in journal.pages(lane, after=journal.base(lane).seq, upto=upto, size=50):
        for fact in page[: limits.step - len(going)]:
            size_bytes += len(fact.data)
            if going and size_bytes > STEP_BYTES:
                return going
            going.append(fact)
        if len(going) >= limits.step:
            break
    return going


def _told(facts: Iterable[Fact]) -> list[Note]:
    return [(STREAM, KIND, told) for told in summaries(facts)]


def _written(fact: Fact) -> dict[str, Any]:
    """A line that is written again says when it was written first."""
    first = {"seq": fact.seq, "at_ms": fact.at_ms, "boot_id": fact.boot_id, "mono_ms": fact.mono_ms}
    return {"written": first, **fact.values}


def _last_lines(journal: Reading, limits: Limits, going: list[Fact]) -> list[Fact]:
    """Of what goes, the last lines, no progress, of the last failed attempts."""
    named = {fact.stream for fact in going if _is_line(fact, limits)}
    failed = _failed(journal, limits, {split_name(name)[0] for name in named}) if named else set()
    kept: list[Fact] = []
    for name in failed & named:
        lines = [fact for fact in going if fact.stream == name and _is_line(fact, limits)]
        lines += [fact for fact in _near(journal, name, going[-1].seq) if _is_line(fact, limits)]
        lines.sort(key=_first_seq)
        kept += [fact for fact in lines[-limits.failure_lines :] if fact.seq <= going[-1].seq]
    return sorted(kept, key=lambda fact: fact.seq)


def _near(journal: Reading, stream: str, after: int) -> list[Fact]:
    """Lines of an attempt are written together: those that do not go with this step follow soon."""
    pages = journal.pages(Lane.LOG, after=after, upto=after + NEAR, stream=stream)
    return [fact for page in pages for fact in page]


def _is_line(fact: Fact, limits: Limits) -> bool:
    return fact.is_note and fact.kind != KIND and fact.kind not in limits.progress


def _first_seq(line: Fact) -> int:
    """Where it was written first."""
    first = line.values.get("written")
    return first["seq"] if isinstance(first, dict) and "seq" in first else line.seq


def _failed(journal: Reading, limits: Limits, machines: set[str]) -> set[str]:
    """The last failed attempts of these machines; one that goes on may still fail."""
    found: set[str] = set()
    for machine in machines:
        newest = journal.streams(machine, newest=limits.keep_attempts)
        failed = [info.name for info in newest if not info.ended or info.state in limits.failed]
        found |= set(failed[-limits.failed_attempts :])
    return found


def _barrier(journal: Reading, lane: Lane) -> int:
    """Up to where a lane may be forgotten: the transitions of an open stream stay."""
    if lane is Lane.LOG:
        return journal.head(lane).seq
    first = [info.first_seq for info in journal.open_streams() if info.lane is lane]
    return min(first, default=journal.head(lane).seq + 1) - 1


def _too_old(journal: Reading, limits: Limits, lane: Lane, now: Stamp) -> int:
    """Up to where the lane is known to be older than it may be: a later fact is not older than an earlier one."""
    if now.skew_ms is None:
        return 0
    before_ms = now.at_ms + now.skew_ms - limits.max_age_ms
    return journal.known_older(lane, before_ms, among=limits.step)


# -- inside the transaction ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Carried:
    """What the name of a stream keeps when its beginning goes."""

    machine: str
    attempt: int
    state: str
    belief: str


def carried(journal: Reading, step: Step, freeze: Freeze | None) -> list[Carried]:
    """Asked before the transaction: it reads. Streams that go as a whole keep nothing."""
    parts: dict[str, list[Fact]] = {}
    for fact in step.going:
        if not fact.is_note:
            parts.setdefault(fact.stream, []).append(fact)
    newest = {
        machine: journal.newest_attempt(machine)
        for machine in {split_name(name)[0] for name in parts}
    }
    found = []
    for name, going in parts.items():
        info = journal.stream(name)
        if info is None or _goes(step, info, newest):
            continue
        found.append(Carried(*split_name(name), going[-1].dst, _belief(info, going, freeze)))
    return found


def _goes(step: Step, info: StreamInfo, newest: dict[str, int]) -> bool:
    ended = info.last_seq is not None and info.last_seq <= step.going[-1].seq
    machine, attempt = split_name(info.name)
    return ended and attempt <= newest[machine] - step.keep_attempts


def _belief(info: StreamInfo, going: list[Fact], freeze: Freeze | None) -> str:
    if freeze is None:  # asked to forget by somebody who has no machines
        return UNKNOWN if info.belief else ""
    belief = freeze(info, going)
    return UNKNOWN if belief is None else belief


def all_that_cloudly_has(journal: Reading, *, keep: int, step: int) -> Step | None:
    """Log facts beyond the newest `keep`, and nothing else."""
    limits = Limits(step=step, keep_attempts=1)
    return _beyond(journal, limits, Lane.LOG, keep)


def forget(connection: sqlite3.Connection, step: Step, kept: Iterable[Carried]) -> None:
    """Inside a transaction: delete these oldest facts of their lane, and keep what stands for them."""
    upto, lane = step.going[-1], step.lane.value
    connection.execute(f"DELETE FROM {lane} WHERE seq <= ?", (upto.seq,))  # noqa: S608 - ours
    connection.execute(
        "UPDATE base SET seq = ?, hash = ? WHERE lane = ?", (upto.seq, upto.hash, lane)
    )
    connection.executemany(
        "UPDATE stream SET first_seq = ?, carried = ?, belief = ? WHERE machine = ? AND attempt = ?",
        [(upto.seq + 1, each.state, each.belief, each.machine, each.attempt) for each in kept],
    )
    _forget_names(connection, step)
    if step.why:
        bury(connection, _tombstone(step))


def _forget_names(connection: sqlite3.Connection, step: Step) -> None:
    """The newest attempts of a machine stay: no name is given twice. Names are sought as far as this step goes."""
    newest: dict[str, int] = {}
    for name in {fact.stream for fact in step.going if not fact.is_note}:
        machine, attempt = split_name(name)
        newest[machine] = max(newest.get(machine, 0), attempt)
    connection.executemany(
        "DELETE FROM stream WHERE machine = ? AND attempt <= ? AND lane = ? AND last_seq <= ? AND attempt <= "
        "(SELECT max(attempt) FROM stream AS newer WHERE newer.machine = stream.machine) - ?",
        [
            (machine, attempt, step.lane.value, step.going[-1].seq, step.keep_attempts)
            for machine, attempt in newest.items()
        ],
    )


def _tombstone(step: Step) -> Tombstone:
    gone = [f for f in step.going if f.seq > step.acked and f.seq not in step.again]
    times = [fact.at_ms for fact in gone]
    return Tombstone(
        step.lane,
        max(step.going[0].seq, step.acked + 1),
        step.going[-1].seq,
        step.why,
        fewer(Counter(fact.kind for fact in gone)),
        min(times, default=None),
        max(times, default=None),
    )
