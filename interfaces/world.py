"""The one seam for chance: wall clock, monotonic clock, sleep, randomness and ids come through a `World`.

Nothing else in our code may read a clock or draw a number (ruff's banned-api list keeps that), so that the agent,
Cloudly and a Supervisor run together in one process under virtual time.
"""

from __future__ import annotations

import base64
import random
import secrets
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import anyio


class World(Protocol):
    """Time, chance and identity, as an argument."""

    def now(self) -> datetime:
        """The wall clock, aware, UTC. It may be wrong: devices boot in 1970."""

    def monotonic(self) -> float:
        """Seconds since boot, never going back within one boot."""

    def boot_id(self) -> str:
        """Changes with every boot of the host, and with nothing else."""

    def random_bytes(self, count: int) -> bytes:
        """Unguessable bytes, for secrets and ids."""

    def uniform(self, low: float, high: float) -> float:
        """A number between the two, for jitter; never for secrets."""

    async def sleep(self, seconds: float) -> None:
        """Wait; cancellation passes through."""


def now_ms(world: World) -> int:
    """The wall clock in milliseconds since 1970 UTC."""
    return int(world.now().timestamp() * 1000)


def new_secret(world: World) -> str:
    """256 bits as urlsafe base64 without padding: 43 characters."""
    return base64.urlsafe_b64encode(world.random_bytes(32)).rstrip(b"=").decode()


def new_id(world: World) -> str:
    """128 bits as 32 lower-case hex characters."""
    return world.random_bytes(16).hex()


class RealWorld:
    """The world outside."""

    def __init__(self) -> None:
        self._boot_id = _read_boot_id()

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def boot_id(self) -> str:
        return self._boot_id

    def random_bytes(self, count: int) -> bytes:
        return secrets.token_bytes(count)

    def uniform(self, low: float, high: float) -> float:
        return random.uniform(low, high)  # noqa: S311 - jitter, not a secret

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)


def _read_boot_id() -> str:
    """The kernel's boot id. Source: random(4), /proc/sys/kernel/random/boot_id; it is the host's, in containers too."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
