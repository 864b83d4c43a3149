"""Which log streams are open, and when one of them must end.

Rules:
- One stream for each device: a newer one ends the older. Where both wait for the same registration, the newest stays.
- A key that nobody knows yet may be a device's that registers this very moment: its stream is held, with its body
  unread, for a bounded time; there are never many such streams, of one key, of one peer and in all.
- No task of its own: the oldest open stream looks around for all of them, twice a second.
"""

from __future__ import annotations

import re
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count

from cloudly.balena.log_body import Body
from cloudly.balena.log_pace import BYTES_OF_A_LINE, WORK_STOCK_S, Bucket, Shedding
from cloudly.http.live import Closing
from cloudly.problems import Refused, StoreUnavailable
from cloudly.store.device_logs import DeviceLogs
from cloudly.store.store import Store
from interfaces.world import World

LOOK_EVERY_S = 0.5
ASK_EVERY_S = 2.0
"""How often it is asked whether keys are (still) good."""
ASLEEP_S = 60.0
"""Others are called when there is something for them; this is for the case that they were not."""
HELD_FOR_S = 600.0
SILENT_FOR_S = 6 * 3600.0
"""A Supervisor ends a stream that it has nothing for after a minute; that of a device without power never ends."""
HELD_OF_A_KEY = 4
HELD_OF_A_PEER = 64
HELD_IN_ALL = 256
MOST_OPEN = 10_000
REMEMBERED = 10_000
WORK_FACTOR = 40
"""So many times more may be unpacked than is kept."""
IN_ALL_LINES_PER_S = 5000.0
"""Some 20 % of one CPU; beyond it streams wait for each other."""
UUID = re.compile(r"[0-9a-f]{32}|[0-9a-f]{62}")


@dataclass(eq=False, slots=True)
class Place:
    """One open stream."""

    serial: int
    uuid: str
    key: str = field(repr=False)
    peer: str
    body: Body
    since_s: float
    """Since when it waits: for its registration, or for a word of its device."""
    admitted: bool = False
    """Its key is the one of the device with this uuid."""
    end: Refused | None = None
    """Why it must end; it is told so when what came before was kept."""


@dataclass(slots=True)
class Pace:
    """What a device may send, across all its streams."""

    shedding: Shedding
    work: Bucket


class Watch:
    def __init__(
        self, store: Store, logs: DeviceLogs, world: World, closing: Closing, lines_per_s: float
    ) -> None:
        self.logs = logs
        self.in_all = Bucket(IN_ALL_LINES_PER_S, 2 * IN_ALL_LINES_PER_S)
        self._store = store
        self._world = world
        self._closing = closing
        self._lines_per_s = lines_per_s
        self._open: dict[int, Place] = {}
        self._of_device: dict[str, Place] = {}
        self._paces: OrderedDict[str, Pace] = OrderedDict()
        self._serials = count(1)
        self._asked_at_s = 0.0

    @property
    def open(self) -> int:
        return len(self._open)

    @asynccontextmanager
    async def entered(self, uuid: str, key: str, peer: str, body: Body) -> AsyncIterator[Place]:
        """A place among the open streams. Raises Refused (node-unknown, node-revoked, node-mismatch, busy)."""
        self._check_room()
        place = Place(next(self._serials), uuid, key, peer, body, self._world.monotonic())
        known = await self._is_known(place)
        self._check_room()  # others may have come meanwhile
        if known:
            self._admit(place)
        else:
            self._check_held(place)
        self._open[place.serial] = place
        try:
            yield place
        finally:
            self._leave(place)

    def _check_room(self) -> None:
        if self._closing.now or len(self._open) >= MOST_OPEN:
            raise Refused("busy", "Too many log streams are open, or the server is about to stop.")

    def rest_s(self, place: Place) -> float:
        """How long this stream may wait for its own news."""
        return LOOK_EVERY_S if self._leads(place) else ASLEEP_S

    async def look(self, place: Place) -> None:
        """Look around for all, if it is this one's turn: write what is due, end what must end."""
        if not self._leads(place):
            return
        if self._closing.now:
            for other in list(self._open.values()):
                self._end(other, Refused("busy", "The server is about to stop."))
        now_s = self._world.monotonic()
        if now_s - self._asked_at_s >= ASK_EVERY_S:
            self._asked_at_s = now_s
            await self._ask(now_s)
        self.logs.write()

    def pace(self, node_id: str) -> Pace:
        pace = self._paces.get(node_id)
        if pace is None:
            work_per_s = self._lines_per_s * BYTES_OF_A_LINE * WORK_FACTOR
            work = Bucket(work_per_s, work_per_s * WORK_STOCK_S)
            pace = self._paces[node_id] = Pace(Shedding(self._lines_per_s), work)
            if len(self._paces) > REMEMBERED:
                self._paces.popitem(last=False)
        return pace

    def _leads(self, place: Place) -> bool:
        return next(iter(self._open)) == place.serial

    def _leave(self, place: Place) -> None:
        led = self._leads(place)
        del self._open[place.serial]
        if self._of_device.get(place.uuid) is place:
            del self._of_device[place.uuid]
        if not self._open:
            self.logs.rest()
        elif led:
            next(iter(self._open.values())).body.call()

    async def _ask(self, now_s: float) -> None:
        for place in list(self._open.values()):
            try:
                known = await self._is_known(place)
            except Refused as refused:
                self._end(place, refused)
                continue
            if place.serial not in self._open:  # it left meanwhile
                continue
            if known and not place.admitted:
                self._admit(place)
                place.body.call()
            elif not known and (place.admitted or now_s - place.since_s >= HELD_FOR_S):
                self._end(place, Refused("node-unknown"))
            elif now_s - place.since_s >= SILENT_FOR_S:
                self._end(place, Refused("busy", "Nothing came for hours."))

    async def _is_known(self, place: Place) -> bool:
        """Whether it is this device's key; False: it is nobody's. Raises Refused."""
        try:
            _, uuid = await self._store.authenticate_device(place.key)
        except Refused as refused:
            if refused.problem.code == "node-unknown":
                return False
            raise
        except StoreUnavailable:
            if place.serial in self._open:
                return place.admitted  # as it was
            raise Refused("busy") from None
        if uuid != place.uuid:
            raise Refused("node-mismatch", status=401)
        return True

    def _admit(self, place: Place) -> None:
        place.admitted = True
        other = self._of_device.get(place.uuid)
        newer = Refused("busy", "A newer stream of this device took its place.")
        if other is not None and other.serial > place.serial:
            self._end(place, newer)
            return
        self._of_device[place.uuid] = place
        if other is not None:
            self._end(other, newer)

    def _check_held(self, place: Place) -> None:
        """Raises Refused (node-unknown, busy) where it cannot be a device's, or too many wait already."""
        if not UUID.fullmatch(place.uuid):
            raise Refused("node-unknown")
        held = [other for other in self._open.values() if not other.admitted]
        peers = Counter(other.peer for other in held)
        keys = Counter(other.key for other in held)
        if (
            len(held) >= HELD_IN_ALL
            or peers[place.peer] >= HELD_OF_A_PEER
            or keys[place.key] >= HELD_OF_A_KEY
        ):
            raise Refused("busy", "Too many log streams wait for their devices to register.")

    def _end(self, place: Place, why: Refused) -> None:
        if place.end is None:
            place.end = why
            place.body.call()
