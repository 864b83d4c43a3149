"""Telling webhooks what is in their queue: `tick` is a recurring job.

Rules:
- At least once: an event is marked after its receiver took it, so a kill in between sends it again, with the same id.
- One at a time to each receiver, in the order of events; one that a receiver will not take steps aside (`pace`).
- Receivers do not wait for each other: one that hangs holds up nobody but itself, and `AT_ONCE` bounds them all.
- Of several servers the one that has the lease delivers. Two that believe to have it send twice and lose nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import anyio
import httpx

from cloudly.problems import StoreUnavailable
from cloudly.settings import Settings
from cloudly.store import webhooks
from cloudly.store.rollouts import lease
from cloudly.store.store import Store
from cloudly.store.webhooks import Due, Hook
from cloudly.webhooks import pace, secrets_file
from cloudly.webhooks.addresses import transport
from cloudly.webhooks.secrets_file import Kept, SecretsUnreadable
from cloudly.webhooks.sending import Outcome, send
from interfaces.world import World, new_id, now_ms

log = logging.getLogger("cloudly")

JOB = "webhooks"
EVERY_S = 1.0
LEASE = "webhooks"
AT_ONCE = 16
"""Receivers that are spoken with at the same time."""
LASTS_S = 20.0
"""After so long a tick begins nothing more; what another process made meanwhile waits no longer for its first look."""
SLICE = 200
WOKEN_AGAIN_S = 600.0
MOST_PROBLEM = 300
Transports = Callable[[bool], httpx.AsyncBaseTransport]


@dataclass(slots=True)
class Receiver:
    """How one receiver fares, as far as this process saw."""

    failed: set[int] = field(default_factory=set)
    """Events that it did not take since it last took one; two of them, and it is the receiver rather than an event."""
    woken_s: float = float("-inf")


class Delivering:
    def __init__(
        self, store: Store, world: World, settings: Settings, transports: Transports | None = None
    ) -> None:
        self._store = store
        self._world = world
        self._directory: Path = settings.data_dir
        self._make = transports or partial(_transport, root_ca=settings.root_ca)
        self._transports: dict[bool, httpx.AsyncBaseTransport] = {}
        self._receivers: dict[int, Receiver] = {}
        self._slots = anyio.Semaphore(AT_ONCE)
        self._sending = 0
        self._owner = ""
        self._lacking: set[int] = set()
        """Webhooks whose secret is not here, and of which that was told."""
        self._problem: StoreUnavailable | None = None
        """Met by one of those who work side by side; told when all have come back."""

    async def tick(self) -> None:
        """Everything that is due now. Raises StoreUnavailable."""
        hooks = await self._due()
        if not hooks:
            await self._give_back()
            return
        if not await self._leads():
            return
        until_s = self._world.monotonic() + LASTS_S
        async with anyio.create_task_group() as group:
            group.start_soon(self._keep_leading, group.cancel_scope)
            async with anyio.create_task_group() as workers:
                for hook in hooks:
                    workers.start_soon(self._serve, hook, until_s)
            group.cancel_scope.cancel()
        if self._problem is not None:
            problem, self._problem = self._problem, None
            raise problem

    async def leave(self) -> None:
        """Give the lease back and end the connections."""
        await self._give_back()
        made, self._transports = self._transports, {}
        for one in made.values():
            await one.aclose()

    async def _due(self) -> list[Hook]:
        present = now_ms(self._world)
        due = await self._store.read(lambda db: webhooks.with_something_due(db, present))
        return [hook for hook in due if self._is_for_us(hook)]

    def _is_for_us(self, hook: Hook) -> bool:
        """Where several serve, one that lacks the secret leaves it to who has it, and costs the event no attempt."""
        if not self._store.is_shared:
            return True
        try:
            secrets_file.of(self._directory, hook.name)
        except SecretsUnreadable as problem:
            if hook.id not in self._lacking:
                self._lacking.add(hook.id)
                log.warning("a webhook is left to other servers: %s", problem)
            return False
        self._lacking.discard(hook.id)
        return True

    # -- which process

    async def _leads(self) -> bool:
        self._owner = self._owner or new_id(self._world)
        owner, present = self._owner, now_ms(self._world)
        if await self._store.read(lambda db: lease.seen(db, LEASE, owner, present)):
            return False
        taken = await self._store.write(lambda db: lease.take(db, LEASE, owner, present))
        return taken is not None

    async def _keep_leading(self, everything: anyio.CancelScope) -> None:
        while True:
            await self._world.sleep(lease.RENEW_MS / 1000)
            try:
                if await self._leads():
                    continue
                log.warning("another process delivers to webhooks now")
            except StoreUnavailable as problem:
                self._problem = problem
            everything.cancel()
            return

    async def _give_back(self) -> None:
        if self._owner:
            owner, self._owner = self._owner, ""
            await self._store.write(partial(lease.give_back, name=LEASE, owner=owner))

    # -- one receiver

    async def _serve(self, hook: Hook, until_s: float) -> None:
        """Until nothing is due for it; while others are slow, what comes meanwhile is looked for."""
        while True:
            try:
                await self._walk(hook, until_s)
            except StoreUnavailable as problem:
                self._problem = problem
                return
            if not self._sending or self._world.monotonic() >= until_s:
                return
            await self._world.sleep(EVERY_S)

    async def _walk(self, hook: Hook, until_s: float) -> None:
        """Through its queue in order, until something holds it up."""
        after, has_probed = 0, False
        while self._world.monotonic() < until_s:
            queue = await self._store.read(
                partial(webhooks.waiting, hook=hook.id, after=after, limit=SLICE)
            )
            for due in queue:
                after = due.event.number
                if due.next_at_ms > now_ms(self._world):
                    if pace.holds_up(due.attempts):
                        return
                    continue
                if self._world.monotonic() >= until_s:
                    return
                outcome = await self._try(hook, due)
                if outcome.is_taken:
                    if await self._is_back(hook):
                        after = 0
                        break
                elif outcome.is_gone or has_probed or pace.holds_up(due.attempts + 1):
                    return
                else:
                    has_probed = True
            else:
                if len(queue) < SLICE:
                    return

    async def _is_back(self, hook: Hook) -> bool:
        """It takes events again: what waited for a later attempt is due, the oldest first."""
        receiver = self._receiver(hook)
        many, now_s = len(receiver.failed) > 1, self._world.monotonic()
        receiver.failed.clear()
        if not many or now_s - receiver.woken_s < WOKEN_AGAIN_S:
            return False
        receiver.woken_s = now_s
        present = now_ms(self._world)
        await self._store.write(lambda db: webhooks.wake(db, hook.id, present))
        return True

    async def _try(self, hook: Hook, due: Due) -> Outcome:
        async with self._slots:
            self._sending += 1
            try:
                outcome = await self._send(hook, due)
            finally:
                self._sending -= 1
        if outcome.is_taken:
            await self._taken(hook, due, outcome)
        else:
            await self._not_taken(hook, due, outcome)
        return outcome

    async def _send(self, hook: Hook, due: Due) -> Outcome:
        try:
            kept = secrets_file.of(self._directory, hook.name)
        except SecretsUnreadable as problem:
            return Outcome(None, str(problem))
        at_s = now_ms(self._world) // 1000
        return await send(self._transport(kept), hook.url, kept, due.event, at_s)

    async def _taken(self, hook: Hook, due: Due, outcome: Outcome) -> None:
        status, present = outcome.status or 0, now_ms(self._world)
        await self._store.write(
            lambda db: webhooks.delivered(db, hook.id, due.event.number, status, present)
        )

    async def _not_taken(self, hook: Hook, due: Due, outcome: Outcome) -> None:
        failed, event = self._receiver(hook).failed, due.event.number
        if not failed:
            log.warning(
                "a webhook was not told",
                extra={"values": {"webhook": hook.name, "event": event, "why": outcome.problem}},
            )
        failed.add(event)
        present, problem = now_ms(self._world), outcome.problem[:MOST_PROBLEM]
        wait_s = pace.wait_s(due.attempts + 1, self._world, outcome.again_in_s)
        failure = partial(
            webhooks.failed,
            hook=hook.id,
            event=event,
            status=outcome.status,
            problem=problem,
            next_at_ms=present + int(wait_s * 1000),
        )
        await self._store.write(failure)
        if outcome.is_gone:
            await self._store.write(
                lambda db: webhooks.disable(db, hook.id, webhooks.GONE, present)
            )
            log.warning(
                "a webhook is disabled: %s", webhooks.GONE, extra={"values": {"webhook": hook.name}}
            )
        elif pace.is_given_up(due.queued_at_ms, present):
            many = await self._store.write(
                lambda db: webhooks.give_up(db, hook.id, problem, present)
            )
            values = {"webhook": hook.name, "events": many, "why": problem}
            log.error("events were given up", extra={"values": values})

    def _receiver(self, hook: Hook) -> Receiver:
        return self._receivers.setdefault(hook.id, Receiver())

    def _transport(self, kept: Kept) -> httpx.AsyncBaseTransport:
        made = self._transports.get(kept.allow_private)
        if made is None:
            made = self._transports[kept.allow_private] = self._make(kept.allow_private)
        return made


def _transport(allow_private: bool, root_ca: Path | None) -> httpx.AsyncBaseTransport:  # noqa: FBT001 - a Transports
    return transport(allow_private=allow_private, root_ca=root_ca, most=AT_ONCE)
