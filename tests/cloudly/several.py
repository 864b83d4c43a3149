"""Several servers on one PostgreSQL, in one story: each with a memory and a directory of its own."""

from __future__ import annotations

import random  # noqa: TID251 - which server a balancer takes is chance from a seed
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import httpx

from simulators.world import SimWorld
from tests.cloudly.given import Device, Plane


@dataclass
class Servers:
    """The same Cloudly, twice or more, and a balancer that takes any of them."""

    planes: list[Plane]
    chance: random.Random = field(default_factory=lambda: random.Random(7))  # noqa: S311

    @classmethod
    def begin(cls, first: Plane, *, count: int = 2, seed: int = 7) -> Servers:
        """Beside `first`, which is on PostgreSQL."""
        assert first.database_url is not None
        planes = [first]
        for number in range(1, count):
            directory = first.directory.with_name(f"cloudly-{number}")
            directory.mkdir()
            world = SimWorld(f"server {number}")
            planes.append(Plane.begin(directory, world=world, database_url=first.database_url))
        return cls(planes, random.Random(seed))  # noqa: S311

    def end(self) -> None:
        """All but the first, which its fixture ends."""
        for plane in self.planes[1:]:
            plane.end()

    def at(self, device: Device, number: int) -> Device:
        """The same device, whose next requests go to that server."""
        return replace(device, plane=self.planes[number])

    def any(self, device: Device) -> Device:
        return self.at(device, self.chance.randrange(len(self.planes)))

    async def flush(self) -> None:
        """So much later that what was in memory is in the database, in each server's order."""
        await self.planes[0].world.sleep(16)
        for plane in self.planes:
            await plane.app.state.recurring.once("presence")
            assert plane.app.state.recurring.problems() == {}


def statuses(answers: Sequence[httpx.Response]) -> list[int]:
    return sorted(answer.status_code for answer in answers)
