"""What a balena Supervisor asks of its only backend: all of its routes."""

from __future__ import annotations

from starlette.routing import Route

from cloudly.balena.device import Device
from cloudly.balena.door import Door
from cloudly.balena.registration import Registration
from cloudly.balena.state import State
from cloudly.settings import Settings
from cloudly.store.store import Store
from interfaces.world import World


class SupervisorApi:
    def __init__(self, store: Store, world: World, settings: Settings) -> None:
        self._door = Door(store, world, settings)

    def routes(self) -> list[Route]:
        door = self._door
        return [*Registration(door).routes(), *State(door).routes(), *Device(door).routes()]
