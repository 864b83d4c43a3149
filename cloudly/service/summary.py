"""How many nodes are online, late, offline, revoked, or in need of somebody: counted a slice of ids at a time."""

from __future__ import annotations

from collections import Counter
from functools import partial

from anyio.lowlevel import checkpoint

from cloudly.store import lists
from cloudly.store.presence import PRESENCE_EVERY_S
from cloudly.store.store import Store
from cloudly.views import LATE_INTERVALS, ONLINE_INTERVALS

SLICE = 5_000
"""Ids: 5 to 10 ms."""


async def presence(store: Store, *, now_ms: int, every_s: float) -> dict[str, int]:
    """By the words of `lists.presence`. A time is allowed to be as old as it may be before it is saved."""
    lag_s = PRESENCE_EVERY_S
    late_ms = now_ms - round((ONLINE_INTERVALS * every_s + lag_s) * 1000)
    offline_ms = now_ms - round((LATE_INTERVALS * every_s + lag_s) * 1000)
    counted: Counter[str] = Counter()
    highest = await store.read(lists.highest_node)
    for above in range(0, max(highest, 1), SLICE):
        ask = partial(
            lists.presence, above=above, upto=above + SLICE, late_ms=late_ms, offline_ms=offline_ms
        )
        counted.update(dict(await store.read(ask)))
        await checkpoint()  # SQLite answers without letting anybody else in
    return {name: int(count) for name, count in counted.items()}
