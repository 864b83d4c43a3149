"""The local API as one more task of a life: opened, watched, opened again; its troubles never become the agent's.

What makes the journal unusable is the exception: that ends the life, as it does wherever it is noticed.
"""

from __future__ import annotations

import logging

import anyio

from baserunner.local_api.app import Api, Leases, View
from baserunner.local_api.connection import Http
from baserunner.local_api.doorman import Doorman
from baserunner.local_api.gate import Gate
from baserunner.local_api.place import Door, open_door
from baserunner.logs import Changes
from baserunner.problems import LocalApiProblem
from baserunner.settings import LocalApi
from baserunner.shared import Neighbours
from interfaces.local import SOCKET_FILE
from journal.problems import JournalProblem

log = logging.getLogger(__name__)

LOOK_S = 5.0
"""How often it is tried again, and how often it is seen whether the socket is still there."""


class Serving:
    """`run` until it is cancelled."""

    def __init__(self, chosen: LocalApi, near: Neighbours, view: View, leases: Leases) -> None:
        self._chosen = chosen
        self._near = near
        self._api = Api(view, leases, self._note)
        self._trouble: JournalProblem | None = None
        self._troubled = anyio.Event()
        self._state = Changes()

    async def run(self) -> None:
        """Raises JournalProblem when a request met one."""
        while True:
            try:
                door = open_door(self._chosen, self._near.world)
            except LocalApiProblem as problem:
                self._state.tell(logging.ERROR, log, str(problem))
                await self._near.world.sleep(LOOK_S)
                continue
            try:
                await self._serve(door)
            finally:
                door.close()

    async def _serve(self, door: Door) -> None:
        """Until the socket has gone."""
        self._near.hide(door.token.get_secret_value())
        where = ", ".join(_named(self._chosen))
        self._state.tell(logging.INFO, log, f"the local API is served at {where}")
        async with anyio.create_task_group() as tasks:
            doorman = Doorman(self._near.world, self._chosen.uids, tasks)
            gate = Gate(
                self._api.app(),
                token=door.token,
                port=self._chosen.port,
                tell=doorman.refused,
            )
            try:
                doorman.begin(door.listeners, Http(gate))
                await self._watch(door)
            finally:
                doorman.end()
        self._state.tell(logging.WARNING, log, "the local API's socket has gone: made anew")

    async def _watch(self, door: Door) -> None:
        while door.is_there:
            with anyio.move_on_after(LOOK_S):
                await self._troubled.wait()
            if self._trouble is not None:
                raise self._trouble

    def _note(self, problem: JournalProblem) -> None:
        self._trouble = problem
        self._troubled.set()


def _named(chosen: LocalApi) -> list[str]:
    near = [f"unix://{chosen.directory / SOCKET_FILE}"]
    return near if chosen.port is None else [*near, f"http://127.0.0.1:{chosen.port}"]
