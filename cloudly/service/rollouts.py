"""Rollouts as programs look at them, beside heartbeats: a slice at a time, with what this process knows of them.

Rules:
- What grows with the fleet or with the story is read in slices, so that nobody waits for more than one.
- A story that cannot be read (a newer Cloudly wrote it, or somebody changed it by hand) is told as such; it keeps no
  other from being shown.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from anyio.lowlevel import checkpoint

from cloudly.problems import BadOrder, NoSuch
from cloudly.rollouts.belief import Rollout
from cloudly.rollouts.dry_run import DryRun, Trial
from cloudly.rollouts.machine import MACHINE
from cloudly.rollouts.plan import Plan
from cloudly.store import lists
from cloudly.store.rollouts import candidates, given, listing, story
from cloudly.store.rollouts.candidates import Question, governed
from cloudly.store.rollouts.story import Story
from cloudly.store.sql import Connection
from cloudly.store.store import Store
from journal.facts import Fact
from journal.problems import JournalProblem

T = TypeVar("T")

FACTS = 500
"""Facts that are read at a time: some 5 ms."""
WINDOW = 20_000
"""Ids of nodes that are looked through at a time."""
MOST_LOOKS = 50
NODES = 100
"""Of a dry run: each is asked what governs it, so these are some 10 ms."""
NAMED = 100
"""Nodes that a dry run names of a kind; it counts all."""
UNREADABLE = (JournalProblem, BadOrder, KeyError, IndexError, TypeError, ValueError)


class Unreadable(BadOrder):
    """Its facts are no story that this Cloudly knows."""

    def __init__(self, number: int) -> None:
        super().__init__(
            f"rollout {number} cannot be read: a newer Cloudly wrote it, or its facts were changed by hand;"
            " its events are shown nevertheless"
        )


async def near(store: Store, number: int) -> Story:
    """All of a rollout but its newest facts, folded: from what this process knows, or slice by slice.

    Raises NoSuch, Unreadable.
    """
    at_hand = store.rollouts.at_hand(number)
    if at_hand is not None:
        return at_hand.story
    known = await store.read(partial(_unread, number=number))
    while True:
        more = await store.read(partial(caught_up, known=known, most=FACTS))
        if more.seq < known.seq + FACTS:
            return more
        known = more
        await checkpoint()  # SQLite answers without letting anybody else in


def caught_up(db: Connection, known: Story, *, most: int = story.LAST) -> Story:
    """With the facts that were written since. Raises Unreadable."""
    try:
        return story.caught_up(db, known, most=most)
    except UNREADABLE as problem:
        raise Unreadable(known.number) from problem


def _unread(db: Connection, number: int) -> Story:
    try:
        return story.unread(db, number)
    except NoSuch:
        raise
    except UNREADABLE as problem:
        raise Unreadable(number) from problem


async def asked(store: Store, number: int, question: Callable[[Connection, Story], T]) -> T:
    """One question about a rollout, and all of its facts, of one moment. Raises NoSuch, Unreadable."""
    known = await near(store, number)
    return await store.read(lambda db: question(db, caught_up(db, known)))


async def listed(
    store: Store, *, after: int | None, limit: int, is_open: bool | None
) -> tuple[list[dict[str, Any]], int | None]:
    """The newest first, and where to go on."""
    ask = partial(listing.numbers, after=after, limit=limit + 1, is_open=is_open)
    numbers = await store.read(ask)
    lines = []
    for number in numbers[:limit]:
        lines.append(await _line(store, number))
        await checkpoint()
    return lines, numbers[limit - 1] if len(numbers) > limit else None


async def _line(store: Store, number: int) -> dict[str, Any]:
    try:
        return await asked(store, number, listing.line)
    except Unreadable as problem:
        row = await store.read(partial(listing.row, number=number))
        return row | {"unreadable": str(problem)}


async def in_full(store: Store, number: int, now_ms: int) -> dict[str, Any]:
    """One, with all that `cloudly rollout show` tells. Raises NoSuch, Unreadable."""
    told = await asked(store, number, partial(listing.described, now_ms=now_ms))
    found = []
    highest = await store.read(lists.highest_node) if told["opened"] else 0
    for above in range(0, highest, WINDOW):
        look = partial(given.failures_between, number=number, above=above, upto=above + WINDOW)
        found += await store.read(look)
        await checkpoint()
    return told | {"failures": given.most_frequent(found)}


async def nodes(
    store: Store, number: int, *, outcome: str | None, after: int, limit: int
) -> tuple[list[dict[str, Any]], int | None]:
    """Who was given the order, by number, and where to go on. Raises NoSuch.

    `outcome`: only those; empty: those in flight. Fewer than `limit`, or none, may come before the end.
    """
    await store.read(partial(story.must_be, number=number))
    highest = await store.read(lists.highest_node)
    found: list[tuple[int, dict[str, Any]]] = []
    for _ in range(MOST_LOOKS):
        look = partial(
            given.grants_between, number=number, above=after, upto=after + WINDOW, outcome=outcome,
            limit=limit + 1 - len(found),
        )  # fmt: skip
        found += await store.read(look)
        if len(found) > limit:
            return [one for _, one in found[:limit]], found[limit - 1][0]
        after += WINDOW
        if after >= highest:
            return [one for _, one in found], None
        await checkpoint()
    return [one for _, one in found], after


def events(db: Connection, *, number: int, after: int, limit: int) -> list[dict[str, Any]]:
    """The next facts, each with whether it follows the one before: one that does not was changed, or one is lost."""
    story.must_be(db, number)
    before, seq = story.hash_at(db, number, after), after
    told = []
    for fact in story.part(db, number, after=after, limit=limit):
        follows = before is not None and fact.seq == seq + 1 and fact.follows(before)
        told.append(listing.event(fact) | {"follows": follows})
        before, seq = fact.hash, fact.seq
    return told


async def replayed(store: Store, number: int, *, after: int, limit: int) -> list[dict[str, Any]]:
    """The facts folded once more: what was believed after each of the next ones. Raises NoSuch, BadOrder."""
    await store.read(partial(story.must_be, number=number))
    believed, seq, steps = MACHINE.start, 0, list[dict[str, Any]]()
    while True:
        facts = await store.read(partial(story.part, number=number, after=seq, limit=FACTS))
        for fact in facts:
            before, believed, seq = believed, _after(number, believed, fact), fact.seq
            if seq > after:
                steps.append(listing.step(fact, before, believed))
            if len(steps) == limit:
                return steps
        if not facts:
            return steps
        await checkpoint()


def _after(number: int, believed: Rollout, fact: Fact) -> Rollout:
    try:
        return story.believe(believed, fact)
    except UNREADABLE as problem:
        raise BadOrder(
            f"fact {fact.seq} of rollout {number} does not follow from what was believed before it;"
            " its events are shown nevertheless"
        ) from problem


async def tried(  # noqa: PLR0913 - a plan, a release, and the moment
    store: Store, plan: Plan, release: int, *, number: int, salt: str, now_ms: int
) -> DryRun:
    """What the plan would do to the fleet as it is; nothing is written. `number`: 0, or of a rollout that there is."""
    question = Question(release, number, now_ms, plan.dark_after_s, plan.node_deadline_s)
    trial = Trial(plan, salt=salt, now_ms=now_ms, named=NAMED)
    after: int | None = 0
    while after is not None:
        some, after = await store.read(partial(_slice, after=after, question=question))
        for node, standing in some:
            trial.add(node, standing)
        await checkpoint()
    return trial.told()


def _slice(db: Connection, after: int, question: Question) -> tuple[list[Any], int | None]:
    some, following = candidates.slice_of(db, after, NODES, question)
    return [(each.view, governed(db, each, question)) for each in some], following
