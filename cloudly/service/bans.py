"""Where something banned is now, counted beside heartbeats: a slice of the nodes at a time."""

from __future__ import annotations

from functools import partial

from anyio.lowlevel import checkpoint

from cloudly.store import lists
from cloudly.store.governance import bans
from cloudly.store.governance.bans import Reach
from cloudly.store.store import Store

WINDOW = 5_000
"""Ids: 5 to 10 ms."""


async def reach(store: Store, digest: str) -> Reach:
    """As `cloudly.store.governance.bans.reach` tells it."""
    counted = []
    for above in range(0, await store.read(lists.highest_node), WINDOW):
        look = partial(bans.reached_between, digest=digest, above=above, upto=above + WINDOW)
        counted.append(await store.read(look))
        await checkpoint()  # SQLite answers without letting anybody else in
    return await store.read(lambda db: bans.together(db, digest, counted))
