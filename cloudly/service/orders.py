"""Making a release the desired state of a node, of a fleet, or of all.

Rules:
- A fleet's default comes first, so that a node that enrolls or moves in meanwhile is not missed.
- One node's past must not stop the others: what is refused there is told, and the rest is ordered.
- An order says whose it is (`by`), and giving it twice is giving it once.
- The audit has one entry for an order to a fleet, which nodes got it is in their deployments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

from cloudly.problems import BadOrder
from cloudly.store import audit, fleets, reading, releases, wanted
from cloudly.store.audit import By
from cloudly.store.sql import Connection
from cloudly.store.store import Store
from cloudly.store.wanted import NewRelease
from interfaces.desired import UpdatePolicy

T = TypeVar("T")

SLICE = 100
"""Nodes of one decision: some 50 ms, for which heartbeats wait."""


class Write(Protocol):
    """`Store.write_now`: one decision."""

    def __call__(self, work: Callable[[Connection], T]) -> T: ...


@dataclass(frozen=True, slots=True)
class Ask:
    """What is to run, how, and who says so."""

    release: NewRelease | str
    """One to define, or the commit or the version of one that there is."""
    policy: UpdatePolicy
    again: bool
    by: By
    new_id: Callable[[], str]
    force: bool = False
    """Also where the node's standing forbids it."""


@dataclass(frozen=True, slots=True)
class Done:
    """What came of it at one node."""

    node_id: str
    generation: int | None
    """None: nothing was ordered, for `why`."""
    deployment: str | None
    why: str = ""
    refused: bool = False


def order_node(db: Connection, ask: Ask, node: str) -> Done:
    """`node` as operators name them. Raises BadOrder; then nothing was changed."""
    release = release_of(db, ask)
    found = reading.find(db, node)
    done = _order(db, ask, release, found["id"], found["node_id"])
    if done.generation is not None:
        told = {"release": releases.named(db, release)["version"], "generation": done.generation}
        audit.note_of_node(
            db, ask.by, "node.release_set", found["id"], **told, again=ask.again, force=ask.force
        )
    return done


def order_fleets(write: Write, ask: Ask, fleet: str | None) -> list[Done]:
    """That fleet, or each, a slice of its nodes per decision. Raises BadOrder, StoreUnavailable.

    After BadOrder nothing was changed. If it ends in the middle, the fleets' defaults stand; asking again orders the
    rest.
    """
    release, meant = write(partial(_begin, ask=ask, fleet=fleet))
    done: list[Done] = []
    for number in meant:
        after: int | None = 0
        while after is not None:
            part, after = write(
                partial(_slice, ask=ask, release=release, fleet=number, after=after)
            )
            done += part
    return done


async def order_fleet(store: Store, ask: Ask, fleet: str) -> list[Done]:
    """The same for one fleet, beside heartbeats. Raises BadOrder, StoreUnavailable."""
    release, (number,) = await store.write(partial(_begin, ask=ask, fleet=fleet))
    done: list[Done] = []
    after: int | None = 0
    while after is not None:
        ordered = partial(_slice, ask=ask, release=release, fleet=number, after=after)
        part, after = await store.write(ordered)
        done += part
    return done


def release_of(db: Connection, ask: Ask) -> int:
    """Its number; a new one is defined. Raises BadOrder."""
    if isinstance(ask.release, str):
        return releases.find_release(db, ask.release)
    return wanted.define_release(db, ask.release, ask.by.at_ms, by=ask.by)


def _begin(db: Connection, ask: Ask, fleet: str | None) -> tuple[int, list[int]]:
    """The release, and the fleets that want it from now on."""
    release = release_of(db, ask)
    meant = fleets.listed(db) if fleet is None else [fleets.named(db, fleet)]
    for one in meant:
        _default(db, ask, release, one["id"], one["name"])
    return release, [int(one["id"]) for one in meant]


def _default(db: Connection, ask: Ask, release: int, fleet: int, name: str) -> None:
    wanted.set_default(db, fleet, release, ask.policy.model_dump_json(), now_ms=ask.by.at_ms)
    version = releases.named(db, release)["version"]
    audit.note(db, ask.by, "fleet.release_set", f"fleet/{name}", release=version, again=ask.again)


def _slice(
    db: Connection, ask: Ask, release: int, fleet: int, after: int
) -> tuple[list[Done], int | None]:
    """The fleet's next nodes, and after which to go on; None: these were the last."""
    rows = db.execute(
        "SELECT id, node_id FROM node WHERE fleet=? AND id>? AND retired_at_ms IS NULL ORDER BY id LIMIT ?",
        (fleet, after, SLICE),
    ).fetchall()
    done = list(_each(db, ask, release, rows))
    return done, rows[-1][0] if len(rows) == SLICE else None


def _each(
    db: Connection, ask: Ask, release: int, rows: Iterable[tuple[int, str]]
) -> Iterable[Done]:
    for number, node_id in rows:
        try:
            yield _order(db, ask, release, number, node_id)
        except BadOrder as problem:
            yield Done(node_id, None, None, str(problem), refused=True)


def _order(db: Connection, ask: Ask, release: int, node: int, node_id: str) -> Done:
    deployment = ask.new_id()
    order = wanted.Order(
        node, release, ask.policy.model_dump_json(), deployment, ask.by.at_ms, actor=ask.by.person
    )
    generation = wanted.set_release(db, order, again=ask.again, force=ask.force)
    if generation is None:
        return Done(node_id, None, None, "has it already")
    return Done(node_id, generation, deployment)
