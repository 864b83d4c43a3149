"""BaseOS as a neighbour sees it, once it is found."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import NoReturn, Self

from interfaces.local import Handshake, Lock, Locks, RuntimeStatus
from onebox.line import AsyncLine, Call, Line
from onebox.locks import AsyncUpdateLock, Terms, UpdateLock
from onebox.problems import DelegatedError

STATUS = Call("GET", "/v1/status", RuntimeStatus)
LOCKS = Call("GET", "/v1/locks", Locks)
TTL_S = 60.0
"""A dead holder is in the way for a minute at most; a live one asks every twenty seconds."""

INSTEAD = (
    "this container is BaseOS's to replace: set another release in Cloudly (`cloudly release set`, or a rollout), and "
    "BaseRunner brings it here; to keep it away for a while hold an update lock (`runtime.update_lock(...)`)"
)


class BaseOSRuntime:
    """Made by `detect`. Close it, or use it as a context."""

    def __init__(self, line: Line, handshake: Handshake) -> None:
        self._line = line
        self.handshake = handshake

    def status(self) -> RuntimeStatus:
        """Node, release, update, why it waits. Raises Unreachable, Refused."""
        return self._line.ask(STATUS)

    def locks(self) -> tuple[Lock, ...]:
        """Every update lock that is held on this device, the oldest first. Raises Unreachable, Refused."""
        return self._line.ask(LOCKS).locks

    def update_lock(
        self,
        owner: str,
        reason: str,
        *,
        ttl_s: float = TTL_S,
        wait_s: float = 0.0,
        on_lost: Callable[[str], object] | None = None,
    ) -> UpdateLock:
        """A context in which no update is applied.

        `ttl_s`: how long it outlives a holder that dies. `wait_s`: how long to wait for an update that is just being
        applied. `on_lost`: called from another thread, with the reason, if the lock ends too early.
        """
        return UpdateLock(self._line, Terms(owner, reason, ttl_s, wait_s, on_lost))

    def replace_self(self) -> NoReturn:
        """What an app does on other runtimes to update itself. Raises DelegatedError, always."""
        raise DelegatedError(INSTEAD)

    def close(self) -> None:
        self._line.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()


class AsyncBaseOSRuntime:
    """The same for an event loop. Made by `detect_async`."""

    def __init__(self, line: AsyncLine, handshake: Handshake) -> None:
        self._line = line
        self.handshake = handshake

    async def status(self) -> RuntimeStatus:
        """Node, release, update, why it waits. Raises Unreachable, Refused."""
        return await self._line.ask(STATUS)

    async def locks(self) -> tuple[Lock, ...]:
        """Every update lock that is held on this device, the oldest first. Raises Unreachable, Refused."""
        return (await self._line.ask(LOCKS)).locks

    def update_lock(
        self,
        owner: str,
        reason: str,
        *,
        ttl_s: float = TTL_S,
        wait_s: float = 0.0,
        on_lost: Callable[[str], object] | None = None,
    ) -> AsyncUpdateLock:
        """A context in which no update is applied; as `BaseOSRuntime.update_lock`."""
        return AsyncUpdateLock(self._line, Terms(owner, reason, ttl_s, wait_s, on_lost))

    def replace_self(self) -> NoReturn:
        """What an app does on other runtimes to update itself. Raises DelegatedError, always."""
        raise DelegatedError(INSTEAD)

    async def close(self) -> None:
        await self._line.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        await self.close()
