"""Virtual time and seeded chance: a whole system runs 30 days in seconds, and the same seed runs the same again.

Rules:
- `VirtualLoop` never waits: when nothing is ready it moves its clock to the next timer. When there is no timer either,
  nothing can ever happen again, and it says so (`NothingWillHappenError`): a free deadlock detector.
- No threads and no real sockets inside: a 50 ms thread call would let hours pass.
- `SimWorld` is what one host knows of time and chance. Several of them (a device, a server) share one loop, each with a
  clock, a boot and a seed of its own.

Source: the simulation measured in the reliability note, 30 days of agent and server in 15 s.
"""

from __future__ import annotations

import asyncio
import random  # noqa: TID251 - the one place where chance is made from a seed
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Final, TypeVar

import anyio

T = TypeVar("T")

MORNING: Final = datetime(2026, 11, 23, 6, 0, tzinfo=UTC)
"""Where simulated wall clocks start unless told otherwise."""

FACTORY_CLOCK: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""What a device without a clock battery believes until someone tells it better."""


class NothingWillHappenError(RuntimeError):
    """Every task waits and no timer is set: in virtual time that is a deadlock."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock moves only when everybody waits."""

    def __init__(self) -> None:
        super().__init__()
        self._virtual_s = 0.0
        selector = self._selector  # type: ignore[attr-defined]  # a BaseSelectorEventLoop always has one
        really_select = selector.select

        def select(timeout: float | None = None) -> list[Any]:
            ready: list[Any] = really_select(0)
            if not ready and timeout != 0:  # nobody in here has anything to do
                ready = self._outside(really_select)
            if not ready:
                self._pass(timeout)
            return ready

        selector.select = select

    def time(self) -> float:
        return self._virtual_s

    def _outside(self, _select: Callable[[float], list[Any]]) -> list[Any]:
        """What comes from outside the simulation, where there is such a thing."""
        return []

    def _pass(self, timeout: float | None) -> None:
        if timeout is None:
            raise NothingWillHappenError(
                "virtual time stands still: every task waits, and no timer is set to wake one",
            )
        self._virtual_s += max(timeout, 0.0)


class PatientLoop(VirtualLoop):
    """One whose clock also stands while a real neighbour (a database server) is being spoken with."""

    neighbours: ClassVar[list[Callable[[], bool]]] = []
    """Each tells whether an answer of its is awaited."""
    PATIENCE_S: Final = 60

    def _outside(self, select: Callable[[float], list[Any]]) -> list[Any]:
        for _ in range(self.PATIENCE_S):
            if not any(speaking() for speaking in self.neighbours):
                return []
            ready = select(1.0)
            if ready:
                return ready
        raise NothingWillHappenError(f"a real neighbour did not answer for {self.PATIENCE_S} s")


def run_virtual(story: Callable[..., Awaitable[T]], *args: object) -> T:
    """Run `story(*args)` to its end under virtual time; returns what it returns.

    Raises:
        NothingWillHappenError: every task waits and no timer is set.

    """
    return anyio.run(story, *args, backend_options={"loop_factory": VirtualLoop})


class SimWorld:
    """A `World` whose time is the running loop's and whose chance is a seed's."""

    def __init__(self, seed: int | str, *, wall: datetime = MORNING) -> None:
        self.seed: Final = seed
        self._secrets = random.Random(f"{seed}/secrets")  # noqa: S311 - a simulation's
        self._jitter = random.Random(f"{seed}/jitter")  # noqa: S311 - a simulation's
        self._boots = 1
        self._booted_at = 0.0
        self._offset = timedelta(0)
        self._wall = wall

    def now(self) -> datetime:
        return self._wall + self._offset + timedelta(seconds=_loop_time())

    def monotonic(self) -> float:
        return _loop_time() - self._booted_at

    def boot_id(self) -> str:
        digits = random.Random(f"{self.seed}/boot/{self._boots}").randbytes(16).hex()  # noqa: S311 - a simulation's
        return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))

    def random_bytes(self, count: int) -> bytes:
        return self._secrets.randbytes(count)

    def uniform(self, low: float, high: float) -> float:
        return self._jitter.uniform(low, high)

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)  # noqa: TID251 - the seam itself

    # What only the one who simulates may do.

    @property
    def boots(self) -> int:
        """How often this host has booted, the first time included."""
        return self._boots

    def reboot(self) -> None:
        """A new boot id, and a monotonic clock that starts again."""
        self._boots += 1
        self._booted_at = _loop_time()

    def jump(self, by: timedelta) -> None:
        """The wall clock jumps; the monotonic clock does not notice."""
        self._offset += by

    def set_clock(self, to: datetime) -> None:
        """The wall clock is set, as by a first answer of NTP."""
        self._offset += to - self.now()


def _loop_time() -> float:
    """The running loop's time; 0.0 while worlds are still being built."""
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:
        return 0.0
