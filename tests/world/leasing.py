"""A neighbour of the agent under virtual time, which holds update locks."""

from __future__ import annotations

from interfaces.local import Acquire, Held, Lock, Release, Renew
from interfaces.world import new_id
from tests.world.kit import Place


def acquire(place: Place, *, owner: str = "backup", ttl_s: float = 600.0) -> Held:
    """As the local API does for a neighbour."""
    request = new_id(place.cloudly_world)
    ask = Acquire(owner=owner, reason="nightly backup", ttl_s=ttl_s, request_id=request)
    return place.leases.acquire(ask)


def release(place: Place, held: Held) -> Lock:
    return place.leases.release(held.lock.lock, Release(key=held.key))


def renew(place: Place, held: Held, *, ttl_s: float = 600.0) -> Lock:
    return place.leases.renew(held.lock.lock, Renew(key=held.key, ttl_s=ttl_s))
