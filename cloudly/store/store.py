"""The store: the one door to the database for the app, the page and the CLI.

Rules:
- What is written is durable when a call returns. Nothing is written by a heartbeat that changes nothing: its time, its
  volatile values and the heads it names stay in memory and go out with the next heartbeat after `PRESENCE_EVERY_S`.
- A database that was restored from a backup is noticed when it is opened to be served (`incarnation.py`), and node by
  node when one has seen a generation that was never given here.
- Another process (the CLI) may write beside us; every read sees what is committed.
- SQLite or PostgreSQL (`database.py`): the decisions are the same functions on both.
"""

from __future__ import annotations

import logging
import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import partial
from pathlib import Path
from typing import Any

from cloudly.batch import Batch
from cloudly.problems import Refused, StoreUnavailable
from cloudly.slots import alone
from cloudly.store import (
    heads,
    incarnation,
    joining,
    journals,
    migrate,
    nodes,
    rotation,
    targets,
    wanted,
)
from cloudly.store.connection import connect
from cloudly.store.database import Database, T, Work
from cloudly.store.devices import Devices
from cloudly.store.gathered import Gathered
from cloudly.store.group import Group, OnCommit
from cloudly.store.presence import PRESENCE_EVERY_S, Presence
from cloudly.store.rollouts.admitting import CheckIns
from cloudly.store.rollouts.known import OpenRollouts
from cloudly.store.saving import Saving
from cloudly.store.sql import Connection, Row
from cloudly.store.sqlite import SqliteDatabase
from cloudly.store.together import MOST
from cloudly.store.usual import UsualBatch, UsualBeat
from cloudly.voices import Standing
from interfaces.desired import DesiredState
from interfaces.journal import Ack
from interfaces.world import World, new_id, now_ms

log = logging.getLogger("cloudly")

FILE = "cloudly.db"
LOCK = "migrate.lock"
"""Of who makes or migrates, and of who writes the incarnation down."""
KEPT_DESIRED = 10_000
FULL_RETRY_S = (5.0, 15.0)
"""A full queue: after so long, each at another moment, a batch may be sent again."""
MOST_OBSERVED = 2**32
"""Nobody orders that often: a node that has seen more generations is not believed."""


class Store:
    most_waiting = 4 * MOST
    """Decisions queued for a COMMIT above which no batch of a journal is taken; heartbeats are."""

    def __init__(self, database: Database, world: World, directory: Path, *, serves: bool) -> None:
        self.database = database
        self._directory = directory
        self._serves = serves
        self._world = world
        self._group = Group(database, world.monotonic)
        self._desired: OrderedDict[str, DesiredState] = OrderedDict()
        self._presence = Presence()
        self._saved_at = world.monotonic()
        self._beats = 0
        self.batches = 0
        """Of journals, taken since the start."""
        self.facts = 0
        """In them."""
        gathers = database.gathers
        self._callers = Gathered(self.read, nodes.callers) if gathers else None
        self._positions = Gathered(self.read, heads.positions_of_many) if gathers else None
        self.incarnation = self._begin_life() if serves else ""
        """Which life of this database it is; known only to who serves it."""
        self.app_uuid = self._once(
            "app-uuid", prefix="a"
        )  # of digits only, a Supervisor removes it for ever
        self.devices = Devices(self.read, self._group, self.app_uuid)
        self._saving = Saving(self._group, self._presence, self.devices, in_bulk=gathers)
        self.rollouts = OpenRollouts(self.read, world)
        self._check_ins = CheckIns(self.rollouts, self.read, self.write, partial(new_id, world))

    @classmethod
    def open(
        cls, directory: Path, world: World, *, serves: bool = True, database_url: str | None = None
    ) -> Store:
        """The store of that directory, made or migrated if need be. Raises StoreProblem, BadSettings, OSError.

        Its database is PostgreSQL at that URL, or SQLite in the directory. `serves` is false for who works beside the
        server or without one.
        """
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if database_url is not None:
            from cloudly.store.pg.opening import open_postgresql

            return cls(open_postgresql(database_url), world, directory, serves=serves)
        file = directory / FILE
        try:
            with alone(directory / LOCK):
                file.touch(mode=0o600)
                connection = connect(file)
                migrate.bring_up_to_date(file, connection)
        except sqlite3.Error as problem:
            raise StoreUnavailable(f"{file} could not be opened: {problem}") from problem
        return cls(SqliteDatabase(connection), world, directory, serves=serves)

    async def leave(self) -> None:
        """The connections of this event loop end, before it does. Then `close`."""
        await self.database.leave()

    def close(self) -> None:
        try:
            if self._serves and not self.database.broken:
                self._saving.save_now()
                self._keep(self._group.write_now(incarnation.raise_count))
        except StoreUnavailable as problem:
            log.warning("the last times of nodes were not saved: %s", problem)
        finally:
            self._serves = False
            self.database.close()

    # -- device path

    async def check_join_token(self, token: str) -> None:
        await self.read(lambda db: joining.check_join_token(db, token))

    async def enroll(self, ask: joining.Ask) -> joining.Enrolled:
        return await self._group.write(partial(self._enroll, ask=ask))

    def _enroll(self, db: Connection, ask: joining.Ask) -> joining.Enrolled:
        known = db.execute("SELECT id FROM node WHERE node_id=?", (ask.node_id,)).fetchone()
        if known is not None:  # a new epoch ends the one before: what was heard of that is needed
            heads.save_known(db, known[0], self._presence.heads.get(known[0]))
        return joining.enroll(db, ask)

    async def authenticate(self, token_hash: bytes) -> nodes.Caller:
        """Who has this node token. Its first use makes one that was announced the node's. Raises Refused."""
        if self._callers is not None:
            known = await self._callers.of(token_hash)
            if known is not None:
                return known
        caller = await self.read(lambda db: nodes.authenticate(db, token_hash))
        if not caller.is_following:
            return caller
        take = partial(rotation.take, node=caller.node, following=token_hash)
        await self.decide_about(caller.node, partial(take, now_ms=now_ms(self._world)))
        return await self.read(lambda db: nodes.authenticate(db, token_hash))

    async def authenticate_device(self, key: str) -> tuple[int, str]:
        return await self.read(lambda db: nodes.authenticate_device(db, key))

    async def beat(self, heartbeat: nodes.Beat) -> nodes.Caller:
        """Durable when it changed something; else remembered until the next write. Returns who is to be answered.

        Raises Refused (fenced, node-unknown).
        """
        caller = heartbeat.caller
        self._beats += 1
        if heartbeat.is_news:
            standing = await self._group.write(
                partial(self._beat, heartbeat=heartbeat),
                node=caller.node,
                usual=UsualBeat(
                    heartbeat,
                    self._presence.heads.get(caller.node),
                    partial(self._presence.wrote, caller.node, heartbeat.at_ms),
                ),
            )
            if standing is Standing.FENCED:
                raise Refused("fenced")
            if standing is Standing.LATE:
                return caller
        else:
            self._presence.note(heartbeat)
        await self.save_presence_if_due()
        if caller.generation < heartbeat.observed_generation <= MOST_OBSERVED:
            return await self._overtake(heartbeat)
        if heartbeat.voice is None:  # without its journal it does nothing to the device
            return caller
        return await self._check_in(caller, heartbeat.at_ms)

    async def _check_in(self, caller: nodes.Caller, at_ms: int) -> nodes.Caller:
        """What a rollout orders it now is in this very answer."""
        hopes = await self._check_ins.hopes(caller.node_id, at_ms)
        if hopes:
            app = (await self.desired(caller)).app
            hopes = [each for each in hopes if app is None or each.commit != app.release]
        if hopes and await self._check_ins.ask(caller.node, caller.node_id, at_ms, hopes):
            return await self.authenticate(caller.token_hash)
        return caller

    async def save_presence_if_due(self) -> None:
        """Now and then, what is only in memory goes to the database. Raises StoreUnavailable."""
        present_s = self._world.monotonic()
        if not self._saving.is_due or present_s - self._saved_at < PRESENCE_EVERY_S:
            return
        self._saved_at = present_s  # what fails is tried again after as long
        await self._saving.save()
        self._keep(await self._group.write(incarnation.raise_count))

    def _beat(self, db: Connection, heartbeat: nodes.Beat) -> Standing:
        node = heartbeat.caller.node
        heads.save_known(db, node, self._presence.heads.get(node))
        standing = nodes.beat(db, heartbeat, before=self._presence.last(node))
        if standing is Standing.PRESENT:
            self._presence.wrote(node, heartbeat.at_ms)
        return standing

    async def _overtake(self, heartbeat: nodes.Beat) -> nodes.Caller:
        work = partial(
            wanted.overtake,
            node=heartbeat.caller.node,
            observed=heartbeat.observed_generation,
            deployment=new_id(self._world),
            now_ms=heartbeat.at_ms,
        )
        await self._group.write(work, node=heartbeat.caller.node)
        return await self.authenticate(heartbeat.caller.token_hash)

    async def ingest(self, node: int, batch: Batch, *, now_ms: int) -> Ack:
        """What Cloudly has now. Raises Refused (gap, fork, fenced, busy)."""
        if self._group.waiting >= self.most_waiting:
            rest_s = round(self._world.uniform(*FULL_RETRY_S))
            raise Refused("busy", "Too many batches are waiting.", retry_after_s=rest_s)
        work = partial(self._ingest, node=node, batch=batch, now_ms=now_ms)
        usual = UsualBatch(node, batch, self._presence.heads.get(node), now_ms)
        answer = await self._group.write(work, node=node, usual=usual)
        if isinstance(answer, Refused):
            raise answer
        self.batches += 1
        self.facts += len(batch.events)
        return answer

    def _ingest(self, db: Connection, node: int, batch: Batch, now_ms: int) -> Ack | Refused:
        heads.save_known(db, node, self._presence.heads.get(node))
        return journals.ingest(
            db,
            node,
            batch,
            last=partial(nodes.last, db, node, self._presence.last(node)),
            now_ms=now_ms,
            new_id=partial(new_id, self._world),
        )

    async def known_of(
        self, node: int, epoch: str, told: heads.Heads | None
    ) -> tuple[tuple[Ack, ...], tuple[Ack, ...]]:
        """What Cloudly has of each lane of an epoch, and the furthest head that it heard of."""
        found = None if self._positions is None else await self._positions.of((node, epoch))
        if found is None:
            found = await self.read(lambda db: heads.positions(db, node, epoch))
        asks = {} if told is None else told.lanes
        return (
            heads.acks(epoch, found),
            heads.heard(epoch, found, self._presence.heads.get(node), asks),
        )

    async def desired(self, caller: nodes.Caller) -> DesiredState:
        """A deployment never changes, so it is read once."""
        deployment = caller.deployment
        if deployment is None:
            return DesiredState(generation=caller.generation)
        known = self._desired.get(deployment)
        if known is None:
            known = await self.read(lambda db: targets.desired_state(db, deployment))
            self._desired[deployment] = known
            if len(self._desired) > KEPT_DESIRED:
                self._desired.popitem(last=False)
        return known

    async def read(self, question: Work[T]) -> T:
        """An answer from what is committed. Raises StoreUnavailable."""
        try:
            return await self.database.read(question)
        except StoreUnavailable:
            self._group.tell_if_broken()
            raise

    def read_now(self, question: Work[T]) -> T:
        """The same, for who is in no event loop. Raises StoreUnavailable."""
        return self.database.read_now(question)

    # -- operators, and who watches

    async def write(self, work: Work[T]) -> T:
        """One decision, durable when it returns. Raises StoreUnavailable, and what `work` raises."""
        return await self._group.write(work)

    async def decide_about(self, node: int, work: Work[T]) -> T:
        """The same, of a decision that touches that node's rows only: it runs beside those about others."""
        return await self._group.write(work, node=node)

    def write_now(self, work: Work[T]) -> T:
        """One transaction at once, for the CLI."""
        return self._group.write_now(work)

    @property
    def is_shared(self) -> bool:
        """Whether other servers may use the same database."""
        return self.database.gathers

    @property
    def unsaved(self) -> dict[int, tuple[int, str]]:
        """Last seen and report of nodes that are only in memory."""
        return self._presence.seen

    def fresh(self, row: Row) -> dict[str, Any]:
        """A row of `reading.NODES`, with what is newer in memory: other servers may have written since."""
        fresh = dict(row)
        unsaved = self._presence.seen.get(fresh["id"])
        if unsaved is not None and unsaved[0] >= (fresh["last_seen_at_ms"] or 0):
            fresh["last_seen_at_ms"], fresh["reported"] = unsaved
        return fresh

    @property
    def beats(self) -> int:
        """Heartbeats taken since the start."""
        return self._beats

    @property
    def waiting(self) -> int:
        return self._group.waiting

    def when_committed(self, note: OnCommit) -> None:
        self._group.on_commit = note

    @property
    def broken(self) -> bool:
        """The database failed; only another process can go on."""
        return self.database.broken

    def when_broken(self, stop: Callable[[], None]) -> None:
        self._group.on_broken = stop

    async def version(self) -> Hashable:
        """Differs whenever something that a page shows may have changed, by us or by another process."""
        return (self.database.commits, self._beats, await self.database.version())

    def _begin_life(self) -> str:
        kept, fresh = incarnation.read(self._directory), new_id(self._world)
        life, count, restored = self._group.write_now(
            partial(incarnation.begin, kept=kept, fresh=fresh, identity=self.database.identity)
        )
        with alone(self._directory / LOCK):
            incarnation.write(self._directory, life, count)
        if restored:
            log.warning("the database was restored from a backup, or its incarnation file is gone")
        return life

    def _keep(self, count: int) -> None:
        """The file follows the database; one that lags is no harm, it is written again soon."""
        try:
            with alone(self._directory / LOCK):
                incarnation.write(self._directory, self.incarnation, count)
        except OSError as problem:
            log.warning("the incarnation file was not written: %s", problem.strerror)

    def _once(self, key: str, *, prefix: str = "") -> str:
        """A value drawn at the database's birth."""
        value = prefix + new_id(self._world)[len(prefix) :]

        def draw(db: Connection) -> str:
            db.execute("INSERT INTO meta VALUES(?,?) ON CONFLICT DO NOTHING", (key, value))
            return str(db.execute("SELECT value FROM meta WHERE key=?", (key,)).fetchone()[0])

        def known(db: Connection) -> str | None:
            row = db.execute("SELECT value FROM meta WHERE key=?", (key,)).fetchone()
            return None if row is None else str(row[0])

        return self.read_now(known) or self._group.write_now(draw)
