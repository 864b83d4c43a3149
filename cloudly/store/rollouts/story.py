"""The story of a rollout: facts, chained to each other, and what is believed by folding them.

Rules:
- A fact is legal, then written, then believed: the chart and the fold are asked first, the row's projection moves in
  the same transaction.
- Each fact's hash covers it, the hash before and the lease under which it was written (0: a person's order). So a
  change, a loss or another order shows.
- Whoever led before and does not know that another leads now is fenced: a fact under an older lease is refused.
- A note (`late-outcome`) is chained like a fact and never folded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from cloudly.problems import BadOrder, CloudlyProblem, NoSuch
from cloudly.rollouts.belief import Rollout
from cloudly.rollouts.counting import Decision
from cloudly.rollouts.machine import CHART, MACHINE, NAME
from cloudly.rollouts.plan import Plan, read
from cloudly.store import audit, outbox
from cloudly.store.audit import By
from cloudly.store.sql import Connection, Row
from journal.chain import genesis, link
from journal.facts import Fact, Lane, canonical
from journal.problems import IllegalFact, Malformed

LAST = 2**62
LEASE = "rollouts"
"""The name of the lease under which facts are written."""
UNTOLD = frozenset({"outcomes-counted"})
"""Facts that webhooks do not hear of: there is one a second, and each node's own event tells more."""
EVENTS = "SELECT seq, at_ms, kind, src, dst, data, hash, lease_epoch FROM rollout_event"


class Fenced(CloudlyProblem):
    """Another process leads the rollouts by now; nothing was written."""


@dataclass(frozen=True, slots=True)
class Story:
    """A rollout as far as its facts were read: what is believed, and what never changes of it."""

    number: int
    release: int
    """Its row's id; `believed.release` is its commit."""
    policy: str
    """Of the deployments that it orders, as JSON."""
    plan: Plan
    believed: Rollout
    seq: int
    hash: bytes
    lease_epoch: int = 0
    """The youngest lease that wrote a fact of it."""


def stream(number: int) -> str:
    return f"{NAME}/{number}"


def recall(db: Connection, number: int) -> Story:
    """All facts, folded. Raises BadOrder when there is no such rollout, IllegalFact when they are no story."""
    return caught_up(db, unread(db, number))


def unread(db: Connection, number: int) -> Story:
    """Before its first fact: what never changes of it. Raises BadOrder when there is no such rollout."""
    row = db.execute("SELECT release, plan, policy FROM rollout WHERE id=?", (number,)).fetchone()
    if row is None:
        raise _no_such(number)
    start = genesis(stream(number), Lane.CORE)
    return Story(number, row[0], row[2], read(row[1]), MACHINE.start, 0, start)


def caught_up(db: Connection, known: Story, *, most: int = LAST) -> Story:
    """With the facts that were written since, the first `most`: one question where there are none."""
    rows = db.execute(
        f"{EVENTS} WHERE rollout=? AND seq>? ORDER BY seq LIMIT ?", (known.number, known.seq, most)
    ).fetchall()
    believed, epoch = known.believed, known.lease_epoch
    for row in rows:
        believed = believe(believed, fact_of(known.number, row))
        epoch = max(epoch, row["lease_epoch"])
    if not rows:
        return known
    last = rows[-1]
    return replace(
        known, believed=believed, seq=last["seq"], hash=bytes(last["hash"]), lease_epoch=epoch
    )


def believe(believed: Rollout, fact: Fact) -> Rollout:
    """The belief after the fact. Raises IllegalFact where the chart knows no such way."""
    if fact.is_note:
        return believed
    if (fact.src, fact.dst) != (believed.state, CHART.next(believed.state, fact.kind)):
        raise IllegalFact(NAME, believed.state, fact.kind, CHART.allowed(believed.state))
    return MACHINE.fold(believed, fact)


def facts(db: Connection, number: int) -> list[Fact]:
    """All of them, in order."""
    rows = db.execute(f"{EVENTS} WHERE rollout=? ORDER BY seq", (number,)).fetchall()
    return [fact_of(number, row) for row in rows]


def part(db: Connection, number: int, *, after: int, limit: int) -> list[Fact]:
    """The next ones after that one, in order."""
    rows = db.execute(
        f"{EVENTS} WHERE rollout=? AND seq>? ORDER BY seq LIMIT ?", (number, after, limit)
    ).fetchall()
    return [fact_of(number, row) for row in rows]


def newest(db: Connection, number: int, limit: int) -> list[Fact]:
    """The last ones that are no notes, in order."""
    rows = db.execute(
        f"{EVENTS} WHERE rollout=? AND dst<>'' ORDER BY seq DESC LIMIT ?", (number, limit)
    ).fetchall()
    return [fact_of(number, row) for row in reversed(rows)]


def hash_at(db: Connection, number: int, seq: int) -> bytes | None:
    """Of that fact, or of the beginning; None: there is no such fact."""
    if not seq:
        return genesis(stream(number), Lane.CORE)
    row = db.execute(
        "SELECT hash FROM rollout_event WHERE rollout=? AND seq=?", (number, seq)
    ).fetchone()
    return None if row is None else bytes(row[0])


def must_be(db: Connection, number: int) -> None:
    """Raises NoSuch; asks nothing else of it, so also one that cannot be read is found."""
    if db.execute("SELECT 1 FROM rollout WHERE id=?", (number,)).fetchone() is None:
        raise _no_such(number)


def _no_such(number: int) -> NoSuch:
    return NoSuch("rollout", f"there is no rollout {number}: `cloudly rollout list` shows them")


def fact_of(number: int, row: Row) -> Fact:
    """A row as a journal's fact; what a device has its boot for is here the lease."""
    return Fact(
        Lane.CORE, row["seq"], row["seq"], stream(number), row["kind"], row["src"], row["dst"],
        row["at_ms"], str(row["lease_epoch"]), 0, None, row["data"], bytes(row["hash"]),
    )  # fmt: skip


def first_broken(number: int, told: list[Fact]) -> int | None:
    """The number of the first fact that does not follow the one before it; None: the chain is whole."""
    before, seq = genesis(stream(number), Lane.CORE), 0
    for fact in told:
        if fact.seq != seq + 1 or not fact.follows(before):
            return fact.seq
        before, seq = fact.hash, fact.seq
    return None


def append(
    db: Connection, known: Story, decision: Decision, *, now_ms: int, lease_epoch: int = 0
) -> Story:
    """Write the decision as the next fact, with the grants that it closes; the story with it.

    The transaction must be alone with the database, and `known` caught up in it.
    Raises Fenced, IllegalFact, BadOrder (it is too long), ValueError (the fold cannot take it): nothing was written.
    """
    must_lead(db, lease_epoch)
    before = known.believed.state
    src, dst = ("", "") if decision.is_note else (before, CHART.next(before, decision.kind))
    fact = _composed(known, decision, src, dst, now_ms=now_ms, lease_epoch=lease_epoch)
    believed = believe(known.believed, fact)
    db.execute(
        "INSERT INTO rollout_event(rollout, seq, at_ms, kind, src, dst, data, hash, lease_epoch)"
        " VALUES(?,?,?,?,?,?,?,?,?)",
        (known.number, fact.seq, now_ms, fact.kind, src, dst, fact.data, fact.hash, lease_epoch),
    )
    db.execute(
        "UPDATE rollout SET state=?, seq=?, hash=?, is_open=? WHERE id=?",
        (believed.state, fact.seq, fact.hash, int(not believed.is_final), known.number),
    )
    for closed in decision.closes:
        db.execute(
            "UPDATE rollout_grant SET outcome=?, counted=?, outcome_at_ms=?, reason=? WHERE rollout=?"
            " AND node=(SELECT id FROM node WHERE node_id=?)",
            (closed.outcome, closed.outcome, now_ms, closed.reason, known.number, closed.node_id),
        )
    if not decision.is_note and decision.kind not in UNTOLD:
        _tell(db, believed, decision, now_ms)
        if not lease_epoch:
            _audit(db, known.number, believed, decision, now_ms)
    epoch = max(known.lease_epoch, lease_epoch)
    return replace(known, believed=believed, seq=fact.seq, hash=fact.hash, lease_epoch=epoch)


def _tell(db: Connection, believed: Rollout, decision: Decision, now_ms: int) -> None:
    """Webhooks hear of each turn: `rollout.halted`."""
    said = {key: value for key, value in decision.data.items() if key not in {"plan", "salt"}}
    named = {"rollout": believed.rollout, "release": believed.release, "version": believed.version}
    kind = f"rollout.{decision.kind.replace('-', '_')}"
    outbox.tell(db, kind, {**said, **named, "state": believed.state}, now_ms)


def _audit(db: Connection, number: int, believed: Rollout, decision: Decision, now_ms: int) -> None:
    """What a person ordered, also in the audit; what was written under a lease is in the story alone."""
    said = {key: decision.data[key] for key in ("reason", "note", "phase") if key in decision.data}
    act = f"rollout.{decision.kind.replace('-', '_')}"
    by = By(str(decision.data.get("by", "")), now_ms)
    audit.keep(db, by, act, f"rollout/{number}", release=believed.version, **said)


def must_lead(db: Connection, lease_epoch: int) -> None:
    """Raises Fenced if that lease is not the present one; 0 is a person's order, which needs none."""
    if not lease_epoch:
        return
    row = db.execute("SELECT epoch FROM lease WHERE name=?", (LEASE,)).fetchone()
    if row is None or row[0] != lease_epoch:
        present = "none" if row is None else row[0]
        raise Fenced(f"write under lease {lease_epoch}: the present one is {present}")


def order(
    db: Connection, number: int, decide: Callable[[Rollout, Plan], Decision], *, now_ms: int
) -> Story:
    """What a person orders (`cloudly.rollouts.orders`), as the rollout is now. Raises BadOrder."""
    known = recall(db, number)
    return append(db, known, decide(known.believed, known.plan), now_ms=now_ms)


def _composed(  # noqa: PLR0913 - a fact has as many parts
    known: Story, decision: Decision, src: str, dst: str, *, now_ms: int, lease_epoch: int
) -> Fact:
    try:
        data = canonical(dict(decision.data))
    except Malformed as problem:
        raise BadOrder(f"{decision.kind} of rollout {known.number}: {problem}") from problem
    seq, name, boot = known.seq + 1, stream(known.number), str(lease_epoch)
    digest = link(
        known.hash, lane=Lane.CORE, seq=seq, n=seq, stream=name, kind=decision.kind, src=src, dst=dst,
        at_ms=now_ms, boot_id=boot, mono_ms=0, data=data,
    )  # fmt: skip
    return Fact(
        Lane.CORE, seq, seq, name, decision.kind, src, dst, now_ms, boot, 0, None, data, digest
    )
