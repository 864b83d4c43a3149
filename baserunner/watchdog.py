"""Liveness: a thread that ends the process when the event loop has not moved for too long.

A container's HEALTHCHECK restarts nothing (measured); `restart: always` restarts a process that has ended. A thread is
the one thing that still runs when the loop does not; it never touches the journal.
"""

from __future__ import annotations

import faulthandler
import os
import threading
from collections.abc import Callable

from interfaces.world import World

LIMIT_S = 60.0
EXIT_CODE = 70
"""EX_SOFTWARE of sysexits(3): an internal error."""


class Watchdog:
    """Fed by the loop; ends the process when it has not been fed for `limit_s`."""

    def __init__(
        self, *, limit_s: float = LIMIT_S, end: Callable[[int], object] = os._exit
    ) -> None:
        self._limit_s = limit_s
        self._end = end
        self._fed = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    async def feed(self, world: World) -> None:
        """Feed it for as long as the loop moves."""
        self._thread.start()
        try:
            while True:
                self._fed.set()
                await world.sleep(self._limit_s / 10)
        finally:
            self._stopped.set()
            self._fed.set()

    def _watch(self) -> None:
        while not self._stopped.is_set():
            if not self._fed.wait(self._limit_s):
                faulthandler.dump_traceback(all_threads=True)
                self._end(EXIT_CODE)
                return
            self._fed.clear()
            self._stopped.wait(self._limit_s / 20)
