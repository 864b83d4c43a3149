"""What a route is given: the store, the time, and who asks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, TypeVar

import httpx
from fastapi import Depends
from starlette.requests import Request

from cloudly.settings import Settings
from cloudly.store.api_tokens import Caller
from cloudly.store.audit import By
from cloudly.store.database import Work
from cloudly.store.store import Store
from cloudly.webhooks.addresses import Meanings, one_way, resolved
from interfaces.world import World, new_id, now_ms

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Desk:
    """What the API works with, the same for every request."""

    store: Store
    world: World
    settings: Settings
    meanings: Meanings = resolved
    """What the name in a webhook's address means."""
    ways: Callable[[bool, Path | None], httpx.AsyncBaseTransport] = one_way
    """How a webhook is tried: whether it may be private, and the CA that is trusted beside the usual ones."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request of somebody who may make it."""

    desk: Desk
    caller: Caller
    now_ms: int

    @property
    def actor(self) -> str:
        """Whose order it is: the API token's name, never the caller's choice."""
        return self.caller.actor

    @property
    def by(self) -> By:
        """The same, at this moment, for what is audited."""
        return By(self.actor, self.now_ms)

    @property
    def new_id(self) -> Callable[[], str]:
        return partial(new_id, self.desk.world)

    async def read(self, question: Work[T]) -> T:
        """Raises StoreUnavailable."""
        return await self.desk.store.read(question)

    async def write(self, work: Work[T]) -> T:
        """Durable when it returns. Raises StoreUnavailable, and what `work` raises."""
        return await self.desk.store.write(work)


async def _call(request: Request) -> Call:
    desk: Desk = request.app.state.desk
    return Call(desk, request.state.caller, now_ms(desk.world))


Called = Annotated[Call, Depends(_call)]
