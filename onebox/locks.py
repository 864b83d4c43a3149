"""An update lock as its holder sees it: a context that renews it, and says so if it was lost.

Rules:
- Its request id is drawn once: an answer that was lost on the way does not leave a second lock behind.
- It is renewed at a third of its time, so that two renewals in a row may fail.
- It is lost when the agent says that it has ended (an operator broke it, it expired), and when it could not be renewed
  for as long as it lasts: whether it still holds is then not known. Its holder is told at once by `on_lost`, by `lost`
  and by `check`, and at the end of the context by LockLost.
- A lock that cannot be released ends by itself.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import anyio
import anyio.abc

from interfaces.local import Acquire, Held, Lock, Release, Renew
from interfaces.world import RealWorld, World, new_id
from onebox.line import AsyncLine, Call, Line
from onebox.problems import LockLost, OneboxProblem, Refused

log = logging.getLogger(__name__)

AGAIN_S = 1.0
"""Between two looks whether an update is over, and between two tries to renew."""
ENDED = frozenset({"not-found", "forbidden"})
"""What the agent says of a lock that is no longer ours."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What is asked for."""

    owner: str
    reason: str
    ttl_s: float
    wait_s: float
    on_lost: Callable[[str], object] | None


@dataclass
class Holding:
    """One lock from being asked for to its end: what both kinds of holders do alike. Pure but for `on_lost`."""

    terms: Terms
    world: World = field(default_factory=RealWorld)
    held: Held | None = None
    lost: str = ""
    """Why it was lost; empty: it is held."""
    _renewed_at: float = 0.0

    def __post_init__(self) -> None:
        terms = self.terms
        self._ask = Acquire(
            owner=terms.owner,
            reason=terms.reason,
            ttl_s=terms.ttl_s,
            request_id=new_id(self.world),
        )
        self._asked_at = self.world.monotonic()

    # -- what to ask -----------------------------------------------------------------------------

    def acquire(self) -> Call[Held]:
        return Call("POST", "/v1/locks", Held, self._ask)

    def renew(self) -> Call[Lock]:
        held = self._held()
        path = f"/v1/locks/{held.lock.lock}/renew"
        return Call("POST", path, Lock, Renew(key=held.key, ttl_s=self.terms.ttl_s))

    def release(self) -> Call[Lock]:
        held = self._held()
        path = f"/v1/locks/{held.lock.lock}/release"
        return Call("POST", path, Lock, Release(key=held.key))

    # -- what came of it -------------------------------------------------------------------------

    def acquired(self, held: Held, asked_at: float) -> None:
        self.held, self._renewed_at = held, asked_at

    def renewed(self, asked_at: float) -> None:
        self._renewed_at = asked_at

    def may_wait(self, refused: Refused) -> bool:
        """Whether to ask for it again: an update is being applied, and who asks has the time."""
        waited_s = self.world.monotonic() - self._asked_at
        return refused.code == "locked-out" and waited_s < self.terms.wait_s

    def not_renewed(self, problem: OneboxProblem) -> None:
        """It is lost, or will be tried again."""
        silent_s = self.world.monotonic() - self._renewed_at
        if isinstance(problem, Refused) and problem.code in ENDED:
            self._lose(f"it has ended: {problem.detail or problem.code}")
        elif silent_s >= self.terms.ttl_s:
            self._lose(f"it could not be renewed for {silent_s:.0f} s: {problem}")

    def next_s(self) -> float:
        """How long until it is to be renewed; soon again where that failed."""
        due_s = self._renewed_at + self.terms.ttl_s / 3 - self.world.monotonic()
        return max(due_s, min(AGAIN_S, self.terms.ttl_s / 10))

    def check(self) -> None:
        """Raises LockLost if it was lost."""
        if self.lost:
            raise LockLost(f"the update lock of {self.terms.owner} was lost: {self.lost}")

    def _lose(self, why: str) -> None:
        self.lost = why
        log.warning("the update lock of %s was lost: %s", self.terms.owner, why)
        if self.terms.on_lost is None:
            return
        try:
            self.terms.on_lost(why)
        except Exception:
            log.exception("on_lost failed")

    def _held(self) -> Held:
        if self.held is None:
            raise RuntimeError("the update lock is not held: enter it first")
        return self.held


class UpdateLock:
    """`with runtime.update_lock("backup", "nightly backup"):` renewed by a thread. Entered once."""

    def __init__(self, line: Line, terms: Terms) -> None:
        self._line = line
        self._holding = Holding(terms)
        self._over = threading.Event()
        self._renewing = threading.Thread(target=self._renew, name="update-lock", daemon=True)

    @property
    def lock(self) -> Lock:
        """As it was given."""
        return self._holding._held().lock  # noqa: SLF001 - its own other half

    @property
    def lost(self) -> str:
        """Why it was lost; empty: it is held."""
        return self._holding.lost

    def check(self) -> None:
        """Between two steps that need it. Raises LockLost."""
        self._holding.check()

    def __enter__(self) -> Self:
        """Raises Refused (`locked-out`: an update is being applied), Unreachable."""
        holding = self._holding
        while True:
            asked_at = holding.world.monotonic()
            try:
                holding.acquired(self._line.ask(holding.acquire()), asked_at)
            except Refused as refused:
                if not holding.may_wait(refused):
                    raise
                self._over.wait(AGAIN_S)
            else:
                self._renewing.start()
                return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        """Raises LockLost where nothing else went wrong."""
        self._over.set()
        self._renewing.join()
        with contextlib.suppress(OneboxProblem):
            self._line.ask(self._holding.release())
        if error is None:
            self._holding.check()

    def _renew(self) -> None:
        holding = self._holding
        while not holding.lost and not self._over.wait(holding.next_s()):
            asked_at = holding.world.monotonic()
            try:
                self._line.ask(holding.renew(), once=True)
                holding.renewed(asked_at)
            except OneboxProblem as problem:
                holding.not_renewed(problem)


class AsyncUpdateLock:
    """`async with runtime.update_lock("backup", "nightly backup"):` renewed by a task. Entered once."""

    def __init__(self, line: AsyncLine, terms: Terms) -> None:
        self._line = line
        self._holding = Holding(terms, line.world)
        self._tasks: anyio.abc.TaskGroup | None = None

    @property
    def lock(self) -> Lock:
        """As it was given."""
        return self._holding._held().lock  # noqa: SLF001 - its own other half

    @property
    def lost(self) -> str:
        """Why it was lost; empty: it is held."""
        return self._holding.lost

    def check(self) -> None:
        """Between two steps that need it. Raises LockLost."""
        self._holding.check()

    async def __aenter__(self) -> Self:
        """Raises Refused (`locked-out`: an update is being applied), Unreachable."""
        holding = self._holding
        while True:
            asked_at = holding.world.monotonic()
            try:
                holding.acquired(await self._line.ask(holding.acquire()), asked_at)
            except Refused as refused:
                if not holding.may_wait(refused):
                    raise
                await holding.world.sleep(AGAIN_S)
            else:
                self._tasks = await anyio.create_task_group().__aenter__()
                self._tasks.start_soon(self._renew)
                return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        """Raises LockLost where nothing else went wrong. Who is cancelled still lets go of it."""
        assert self._tasks is not None  # noqa: S101 - entered
        self._tasks.cancel_scope.cancel()
        try:
            await self._tasks.__aexit__(None, None, None)
        finally:
            with contextlib.suppress(OneboxProblem), anyio.CancelScope(shield=True):
                await self._line.ask(self._holding.release())
        if error is None:
            self._holding.check()

    async def _renew(self) -> None:
        holding = self._holding
        while not holding.lost:
            await holding.world.sleep(holding.next_s())
            asked_at = holding.world.monotonic()
            try:
                await self._line.ask(holding.renew(), once=True)
                holding.renewed(asked_at)
            except OneboxProblem as problem:
                holding.not_renewed(problem)
