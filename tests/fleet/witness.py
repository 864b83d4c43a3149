"""What can be seen of a device from outside: its disk, and what its Supervisor really runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import anyio.abc

from tests.fleet.device import Device


@dataclass(frozen=True, slots=True)
class Witness:
    uuid: str
    home: Path
    """Where its journal is; of a dead device, what its disk held at that instant."""
    running: str
    """The images of the containers that run; empty: none, or it is dead."""
    dead: bool
    wakes: int
    """How often its agent was started."""


def witness(device: Device) -> Witness:
    return Witness(device.uuid, device.home, device.running, device.dead, device.wakes)


class Fleet(Protocol):
    """Many devices, wherever they are."""

    def start(self, tasks: anyio.abc.TaskGroup, *, within_s: float) -> None:
        """Switch them on, one after the other."""

    async def witnesses(self) -> list[Witness]:
        """Of each device, as it is now."""


@dataclass(slots=True)
class NearFleet:
    """All in this process."""

    devices: list[Device]

    def start(self, tasks: anyio.abc.TaskGroup, *, within_s: float) -> None:
        for place, device in enumerate(self.devices):
            tasks.start_soon(device.live, within_s * place / len(self.devices))

    async def witnesses(self) -> list[Witness]:
        return self.now()

    def now(self) -> list[Witness]:
        return [witness(device) for device in self.devices]
