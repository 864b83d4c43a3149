"""The store's engine on PostgreSQL: reads on a few connections, decisions in group commits, many processes at once.

Rules:
- A decision that names no node takes an advisory lock for itself; those about nodes share it and lock their nodes'
  rows, in order. So each finds what it would find alone (READ COMMITTED: a sentence sees what was committed before).
- A connection that failed is thrown away; the next use makes a new one. Before anything is asked of it, it is compared:
  another cluster, timeline, database or table than at the start means that it was restored, and that only a new
  process can go on.
- A COMMIT whose answer was lost is told as "ask again": what devices and operators ask again is not done twice.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Hashable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import anyio
from sqlalchemy.util import greenlet_spawn

from cloudly.problems import StoreUnavailable
from cloudly.store.database import Pending, T, Work
from cloudly.store.pg import usual
from cloudly.store.pg.address import Address
from cloudly.store.pg.aside import Aside
from cloudly.store.pg.bridge import FAILED, Bridge, telling, wait

log = logging.getLogger("cloudly")

DECISIONS = 0x62617365  # "base": the advisory lock of all who decide
CONNECTIONS = 8
"""At most, of one process."""
PATIENCE_S = 20.0
"""For a free connection; how long the work on it may take is bounded by the settings below."""
SETTINGS = {
    "application_name": "cloudly",
    "lock_timeout": "15s",
    "statement_timeout": "60s",
    "idle_in_transaction_session_timeout": "10s",  # a server that froze, or lost its network, while it decided
    "synchronous_commit": "on",
    "timezone": "UTC",
}
IDENTITY = (
    "SELECT (SELECT system_identifier FROM pg_control_system()), (SELECT timeline_id FROM pg_control_checkpoint()),"
    " (SELECT oid FROM pg_database WHERE datname=current_database()), 'meta'::regclass::oid"
)


class _Undone(StoreUnavailable):
    """It failed before the COMMIT was asked for."""


class PgDatabase:
    def __init__(self, address: Address) -> None:
        self._address = address
        self._free: list[Bridge] = []
        self._slots = anyio.Semaphore(CONNECTIONS)
        self._aside: Aside | None = None
        self.identity: str | None = None
        self.gathers = True
        self.broken = False
        self.commits = 0
        self.decisions = 0
        self._had_idle = False
        """The last connection that was lost had been idle before."""
        self.in_flight = 0
        """Conversations with the server that are going on."""

    def read_now(self, question: Work[T]) -> T:
        return self.aside.call(lambda database: database.read(question))

    def commit_now(self, batch: Sequence[Pending]) -> None:
        self.aside.call(lambda database: database.commit(batch))
        self.broken = self.broken or self.aside.database.broken

    async def read(self, question: Work[T]) -> T:
        try:
            return await self._answer(question)
        except StoreUnavailable:
            if self.broken or not self._had_idle:
                raise
        return await self._answer(question)  # connections that idled may all be dead

    async def _answer(self, question: Work[T]) -> T:
        async with self._connection() as bridge:
            answer: T = await greenlet_spawn(question, bridge)
            return answer

    async def commit(self, batch: Sequence[Pending]) -> None:
        about_nodes = [one for one in batch if one.nodes is not None]
        others = [one for one in batch if one.nodes is None]
        for part, work in ((about_nodes, self._about_nodes), (others, self._alone)):
            if part:
                await self._commit(part, partial(work, part))

    async def version(self) -> Hashable:
        row = await self.read(
            lambda db: db.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())::text").fetchone()
        )
        return str(row[0])

    def close(self) -> None:
        """At once, for whoever could not say goodbye (`leave`)."""
        free, self._free = self._free, []
        for bridge in free:
            with suppress(RuntimeError):  # its loop is closed, and with it the connection
                bridge.raw.terminate()
        if self._aside is not None:
            self._aside.close()
            self._aside = None

    async def leave(self) -> None:
        """Every connection of this loop that is not in use ends; PostgreSQL hears of it."""
        self.in_flight += 1
        try:
            while self._free:
                with suppress(*FAILED):
                    await self._free.pop().raw.close(timeout=2)
        finally:
            self.in_flight -= 1

    async def _commit(self, part: Sequence[Pending], decide: Any) -> None:
        try:
            try:
                await self._transaction(decide)
            except _Undone:
                if self.broken or not self._had_idle:
                    raise
                for pending in part:
                    pending.result = pending.error = None
                await self._transaction(decide)
        except StoreUnavailable as problem:
            for pending in part:
                pending.error = StoreUnavailable(f"nothing was written: {problem}")
        except Exception as problem:  # ours: nobody may wait for ever because of it
            log.exception("a commit failed")
            for pending in part:
                pending.error = problem
        else:
            self.commits += 1
            self.decisions += len(part)

    async def _transaction(self, decide: Any) -> None:
        """Raises _Undone where nothing of it can have been committed, else StoreUnavailable."""
        asked = False
        try:
            async with self._connection() as bridge:
                await bridge.say("BEGIN")
                await greenlet_spawn(decide, bridge)
                asked = True
                await bridge.say("COMMIT")
        except StoreUnavailable as problem:
            raise (problem if asked else _Undone(*problem.args)) from problem

    def _about_nodes(self, part: Sequence[Pending], bridge: Bridge) -> None:
        bridge.execute("SELECT pg_advisory_xact_lock_shared(?)", (DECISIONS,))
        nodes = sorted({node for one in part for node in one.nodes or ()})
        bridge.execute(
            "SELECT id FROM node WHERE id=ANY(?::bigint[]) ORDER BY id FOR NO KEY UPDATE", (nodes,)
        )
        for pending in usual.decide(bridge, part):
            _decide(bridge, pending)

    def _alone(self, part: Sequence[Pending], bridge: Bridge) -> None:
        bridge.execute("SELECT pg_advisory_xact_lock(?)", (DECISIONS,))
        for pending in part:
            _decide(bridge, pending)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Bridge]:
        """A connection that nobody else uses; one that was left in the middle of something is thrown away."""
        if self.broken:
            raise StoreUnavailable("the database is another one since this process began")
        async with self._slot():
            self.in_flight += 1
            bridge = None
            try:
                bridge = await self._any()
                yield bridge
            except Exception as problem:
                is_lost = isinstance(problem, StoreUnavailable)
                if bridge is not None and (is_lost or bridge.raw.is_in_transaction()):
                    bridge.raw.terminate()
                if is_lost:
                    self._forget_idle(bridge)
                raise
            except BaseException:  # cancelled: an answer may still be on its way
                if bridge is not None:
                    bridge.raw.terminate()
                raise
            finally:
                self.in_flight -= 1
                if bridge is not None and not bridge.raw.is_closed():
                    self._free.append(bridge)

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        """The right to one of the connections. Raises StoreUnavailable when none comes free in time."""
        try:
            with anyio.fail_after(PATIENCE_S):
                await self._slots.acquire()
        except TimeoutError:
            raise StoreUnavailable(
                f"each of {CONNECTIONS} connections is in use; no connection was free for {PATIENCE_S:g} s"
            ) from None
        try:
            yield
        finally:
            self._slots.release()

    def _forget_idle(self, lost: Bridge | None) -> None:
        """What became of one may have become of all: the next use makes a new one."""
        self._had_idle = lost is not None and lost.is_used
        free, self._free = self._free, []
        for bridge in free:
            bridge.raw.terminate()

    async def _any(self) -> Bridge:
        while self._free:
            bridge = self._free.pop()
            if not bridge.raw.is_closed():
                bridge.is_used = True
                return bridge
        with telling():
            bridge = Bridge(await self._address.connect(SETTINGS))
        try:
            await self._recognize(bridge)
        except BaseException:
            bridge.raw.terminate()
            raise
        return bridge

    async def _recognize(self, bridge: Bridge) -> None:
        if self.identity is None:
            return
        if await identity_of(bridge) != self.identity:
            self.broken = True
            log.error("the database is another one, or was restored, since this process began")
            raise StoreUnavailable("the database is another one since this process began")

    def recognize(self, identity: str) -> None:
        """From now on only this database is spoken with."""
        self.identity = self.aside.database.identity = identity

    @property
    def aside(self) -> Aside:
        """The same database, for who is in no event loop."""
        if self._aside is None:
            self._aside = Aside(lambda: PgDatabase(self._address))
        return self._aside


async def identity_of(bridge: Bridge) -> str:
    """What differs once a database was restored: cluster, timeline, database, tables."""
    return "/".join(str(part) for part in (await bridge.ask(IDENTITY)).fetchone())


def _decide(bridge: Bridge, pending: Pending) -> None:
    wait(bridge.say("SAVEPOINT decision"))
    try:
        pending.result = pending.work(bridge)
    except StoreUnavailable:
        raise  # the transaction is not to be trusted
    except Exception as problem:  # noqa: BLE001 - whoever asked is told
        wait(bridge.say("ROLLBACK TO decision"))
        pending.error = problem
    wait(bridge.say("RELEASE decision"))
