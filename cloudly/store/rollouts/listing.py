"""Rollouts for people: what there are, how each fares, in the words of its facts. Reads only.

The command and the API show the same: plain values, ready for JSON.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from cloudly.rollouts.belief import Rollout
from cloudly.rollouts.counts import NAMES, Counts
from cloudly.rollouts.dry_run import DryRun, dry_run
from cloudly.rollouts.engine import evidence, soak_until_ms
from cloudly.rollouts.evidence import failures_to_halt
from cloudly.rollouts.machine import MACHINE, RUNNING
from cloudly.rollouts.orders import possible
from cloudly.rollouts.plan import Plan
from cloudly.rollouts.why import Why, why
from cloudly.rollouts.words import sentence
from cloudly.store.rollouts import candidates, counters, given, story
from cloudly.store.rollouts.candidates import Question, governed
from cloudly.store.rollouts.story import Story
from cloudly.store.sql import Connection
from interfaces.why import TRIED
from journal.facts import Fact

MOST = 200
SLICE = 1000


def listed(db: Connection) -> list[dict[str, Any]]:
    """The newest first, each with its present phase and its counts."""
    rows = db.execute("SELECT id FROM rollout ORDER BY id DESC LIMIT ?", (MOST,)).fetchall()
    return [line(db, story.recall(db, row[0])) for row in rows]


def numbers(db: Connection, *, after: int | None, limit: int, is_open: bool | None) -> list[int]:
    """The newest first, older than that one; `is_open`: only those that have, or have not, ended."""
    wanted = "" if is_open is None else f" AND is_open={int(is_open)}"
    rows = db.execute(
        f"SELECT id FROM rollout WHERE id<?{wanted} ORDER BY id DESC LIMIT ?",  # noqa: S608 - ours
        (given.LAST if after is None else after, limit),
    ).fetchall()
    return [int(row[0]) for row in rows]


def row(db: Connection, number: int) -> dict[str, Any]:
    """What is known of one that cannot be read."""
    found = db.execute(
        "SELECT o.id AS rollout, o.state, r.version, r.commit_id AS release, o.created_at_ms AS entered_at_ms"
        " FROM rollout o JOIN release r ON r.id=o.release WHERE o.id=?",
        (number,),
    ).fetchone()
    said = {"phase": "", "of_phases": 0, "opened": 0, "may": []}
    return {**dict(found), **said, **_counts(Counts())}


def shown(db: Connection, number: int, now_ms: int) -> dict[str, Any]:
    """One rollout, whole. Raises BadOrder when there is none."""
    told = story.recall(db, number)
    return described(db, told, now_ms) | {"failures": given.failures(db, number)}


def described(db: Connection, told: Story, now_ms: int) -> dict[str, Any]:
    """The same without what failed, which takes a walk over all nodes that were given the order."""
    live = counters.live(db, told)
    return {
        **line(db, told),
        "created_by": live.created_by,
        "approved_by": live.approved_by,
        "by": live.by,
        "reason": live.reason,
        "selector": told.plan.selector,
        "phases": list(_phases(live, told.plan)),
        "evidence": evidence(live, told.plan).why,
        "failures_to_halt": _more_failures(live, told.plan),
        "why": told_why(db, told, now_ms),
        "plan": told.plan.model_dump(mode="json"),
    }


def told_why(db: Connection, told: Story, now_ms: int) -> dict[str, Any] | None:
    """What it waits for, with the last things that happened; None: it has ended."""
    answer = reasons(db, told, now_ms)
    return None if answer is None else asdict(answer)


def reasons(db: Connection, told: Story, now_ms: int) -> Why | None:
    last = story.newest(db, told.number, TRIED)
    live = counters.live(db, told)
    tried = [f"{fact.kind}: {sentence(fact.kind, fact.values)}" for fact in last]
    return why(live, told.plan, now_ms, tried=tried)


def events(db: Connection, number: int) -> list[dict[str, Any]]:
    """The facts in order, each in a sentence."""
    return [event(fact) for fact in story.facts(db, number)]


def event(fact: Fact) -> dict[str, Any]:
    """One fact, in a sentence too."""
    return {
        "seq": fact.seq, "at_ms": fact.at_ms, "kind": fact.kind, "from": fact.src, "to": fact.dst,
        "says": sentence(fact.kind, fact.values), "lease": int(fact.boot_id), "data": fact.values,
        "hash": fact.hash.hex(),
    }  # fmt: skip


def replay(db: Connection, number: int) -> list[dict[str, Any]]:
    """What was believed after each fact: state, phase and counts, and what the fact changed of them.

    Raises BadOrder when there is no such rollout, journal.problems.IllegalFact when its facts are no story.
    """
    story.recall(db, number)
    believed = MACHINE.start
    steps = []
    for fact in story.facts(db, number):
        after = story.believe(believed, fact)
        steps.append(step(fact, believed, after))
        believed = after
    return steps


def step(fact: Fact, before: Rollout, after: Rollout) -> dict[str, Any]:
    """What is believed after a fact, and what the fact changed of what was believed before it."""
    said = {"seq": fact.seq, "at_ms": fact.at_ms, "kind": fact.kind, "state": after.state}
    return {**said, "phase": after.phase, "changed": _changed(before, after)}


def tried(  # noqa: PLR0913 - a plan, a release, and the moment
    db: Connection, plan: Plan, release: int, *, number: int, salt: str, now_ms: int
) -> DryRun:
    """What the plan would do to the fleet as it is; nothing is written. `number`: 0, or of a rollout that there is."""
    asked = Question(release, number, now_ms, plan.dark_after_s, plan.node_deadline_s)
    nodes = ((each.view, governed(db, each, asked)) for each in _everybody(db, asked))
    return dry_run(plan, nodes, salt=salt, now_ms=now_ms)


def _everybody(db: Connection, asked: Question) -> Iterator[candidates.Candidate]:
    after: int | None = 0
    while after is not None:
        some, after = candidates.slice_of(db, after, SLICE, asked)
        yield from some


def line(db: Connection, told: Story) -> dict[str, Any]:
    """One rollout in a list."""
    live = counters.live(db, told)
    phase = live.present.name if live.slices else ""
    return {
        "rollout": told.number,
        "state": live.state,
        "version": live.version,
        "release": live.release,
        "phase": phase,
        "of_phases": len(told.plan.phases),
        "opened": len(live.slices),
        "entered_at_ms": live.entered_at_ms,
        "may": list(possible(live)),
        **_counts(live.counts),
    }


def _counts(counts: Counts) -> dict[str, int]:
    return {name: getattr(counts, name) for name in NAMES} | {"in_flight": counts.in_flight}


def _phases(live: Rollout, plan: Plan) -> Iterator[dict[str, Any]]:
    for number, phase in enumerate(plan.phases):
        opened = live.slices[number] if number < len(live.slices) else None
        yield {
            "name": phase.name,
            "size": phase.size,
            "state": _phase_state(live, number),
            "soak_s": phase.soak_s,
            "needs_approval": phase.needs_approval,
            "opened_at_ms": opened and opened.opened_at_ms,
            "passed_at_ms": opened and opened.passed_at_ms,
            "soak_until_ms": soak_until_ms(live, plan)
            if live.state == "soaking" and number == live.phase
            else None,
            **_counts(opened.counts if opened is not None else Counts()),
        }


def _phase_state(live: Rollout, number: int) -> str:
    if number >= len(live.slices):
        return "to come"
    if live.slices[number].passed_at_ms is not None:
        return "passed"
    return live.state


def _more_failures(live: Rollout, plan: Plan) -> int | None:
    """How many failures in all halt it, as things stand; None: it is not running."""
    if live.state not in (*RUNNING, "paused"):
        return None
    counts = live.counts
    return failures_to_halt(counts.succeeded, plan.halt, in_flight=counts.in_flight)


def _changed(before: Rollout, after: Rollout) -> dict[str, Any]:
    """The parts of the belief that are others now."""
    ours, theirs = (
        {**{key: value for key, value in asdict(one).items() if key != "slices"}, **_flat(one)}
        for one in (before, after)
    )
    return {key: value for key, value in theirs.items() if ours.get(key) != value}


def _flat(believed: Rollout) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for number, one in enumerate(believed.slices):
        flat |= {f"phase {number + 1} {name}": count for name, count in _counts(one.counts).items()}
    return flat
