"""The log stream: one long `POST .../log-stream`, gzip ndjson in chunks, opened by a line and again after its end.

Rules, each recorded (`log_lines` and times of the backend recordings) unless it says (code):
- The first line opens it, before the device has registered, with the key that the device has at its start.
- Nothing but the headers is sent for 5 s: an answer in that time is an error. Lines that opened it, or came before it
  was open, wait that long; a line that comes meanwhile is ahead of them. So lines arrive out of order.
- After 5 s without a line it ends its body (no error for the backend, whose answer is then ignored), and that counts as
  one failure: the next line opens it again, 10 s after the last opening at the earliest.
- Any answer while it is open is a failure. The wait is 5 s times 2 for each failure in a row, 300 s at most (code).
- At most 256 KiB wait; a line that finds them full is dropped, and told of when they have drained (code).
- A message has at most 10,000 characters, the last five being `[...]` (code).

Not known: what becomes of lines on a connection that is cut: what was compressed is taken for sent here.
"""

from __future__ import annotations

import json
import zlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

import anyio

from interfaces.world import World, now_ms

MAX_MESSAGE: Final = 10_000
OMISSION: Final = "[...]"
MAX_BUFFER: Final = 256 * 1024
MAX_WAITING: Final = 2_000
"""Lines that wait for a connection. The real one has no limit here (code)."""
GRACE_S: Final = 5.0
IDLE_S: Final = 5.0
COOL_DOWN_S: Final = 5.0
MAX_COOL_DOWN_S: Final = 300.0
FLUSH_S: Final = 0.1
LOOK_EVERY_S: Final = 0.5
LEAST_S: Final = 0.001
"""A shorter rest is rounding: late in virtual time it would not move the clock at all."""
GZIP_OF_2_KB: Final = 16 + 11
SMALL: Final = 5
"""A compressor of 24 KB instead of 268: a fleet has hundreds open. Any gzip reader reads it."""

Line = dict[str, Any]
Spawn = Callable[[Callable[[], Coroutine[Any, Any, None]]], None]


@dataclass(slots=True)
class Connection:
    """One request of the stream."""

    lines: deque[bytes]
    flush: Callable[[], Awaitable[None]]
    moved: Callable[[], None]
    """Called when lines have been handed to the socket."""
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    piping: bool = False
    ended: bool = False
    sending: bool = False
    """Whether the socket has not taken yet what it was given."""
    stirred: anyio.Event = field(default_factory=anyio.Event)
    answered_early: Callable[[], bool] = lambda: False
    """Whether an answer lies in the socket; the transport may say how to know."""

    def stir(self) -> None:
        self.stirred.set()

    def end(self) -> None:
        self.ended = True
        self.stir()

    async def body(self) -> AsyncIterator[bytes]:
        """What is sent; it ends when the connection does."""
        gzip = zlib.compressobj(wbits=GZIP_OF_2_KB, memLevel=SMALL)
        while not self.ended:
            self.stirred = anyio.Event()
            if not self.piping or not self.lines:
                await self.stirred.wait()
                continue
            await self.flush()
            packed = b"".join(gzip.compress(line) for line in self._taken())
            packed += gzip.flush(zlib.Z_SYNC_FLUSH)
            self.sending = True
            yield packed
            self.sending = False
            self.moved()
        yield gzip.flush()

    def _taken(self) -> list[bytes]:
        taken = list(self.lines)
        self.lines.clear()
        return taken


Send = Callable[[Connection], Awaitable[int]]
"""Send the body of a connection; returns the status of the answer, or raises OSError when there is none."""


class LogStream:
    """Where lines go. `log` never waits and never fails."""

    def __init__(
        self,
        world: World,
        send: Send,
        *,
        spawn: Spawn,
        spend: Callable[[float], Awaitable[None]],
        speed: float = 1.0,
    ) -> None:
        self._world = world
        self._send = send
        self._spawn = spawn
        self._spend = spend
        self._speed = speed
        self._buffer: deque[bytes] = deque()
        self._size = 0
        self._waiting: list[Line] = []
        self._behind: list[Line] = []
        self._connection: Connection | None = None
        self._setting_up = False
        self._failures = 0
        self._last_try_s: float | None = None
        self._writable = True
        self._dropped = 0
        self._moved_at_s = 0.0

    def log(self, line: Line) -> None:
        """Hand in a line, to be sent when there is a connection."""
        if len(line["message"]) > MAX_MESSAGE:
            line = {**line, "message": line["message"][: MAX_MESSAGE - len(OMISSION)] + OMISSION}
        if self._connection is not None:
            self._write(line)
        elif "serviceId" in line and self._container_waits():
            self._held(self._behind, line)
        else:
            self._held(self._waiting, line)
            self._set_up()

    def _container_waits(self) -> bool:
        """Lines of containers come one after the other, out of the journal: the first that waits holds up the rest."""
        return any("serviceId" in line for line in self._waiting)

    def _held(self, lines: list[Line], line: Line) -> None:
        if len(lines) < MAX_WAITING:
            lines.append(line)
        else:
            self._dropped += 1

    def _write(self, line: Line) -> None:
        if not self._writable:
            self._dropped += 1
            return
        text = json.dumps(line, ensure_ascii=False, separators=(",", ":"))
        packed = text.encode(errors="backslashreplace") + b"\n"
        self._buffer.append(packed)
        self._size += len(packed)
        self._writable = self._size < MAX_BUFFER
        if self._connection is not None:
            self._connection.stir()

    def _drained(self) -> None:
        """The socket has taken all that was in the buffer."""
        self._moved_at_s = self._world.monotonic()
        self._size = sum(len(line) for line in self._buffer)
        if self._size:
            return
        self._writable = True
        if self._dropped:
            warning = f"Warning: Suppressed {self._dropped} message(s) due to high load"
            self._dropped = 0
            self._write(
                {
                    "message": warning,
                    "timestamp": now_ms(self._world),
                    "isSystem": True,
                    "isStdErr": True,
                }
            )

    def _set_up(self) -> None:
        if not self._setting_up:
            self._setting_up = True
            self._spawn(self._try)

    async def _try(self) -> None:
        """Open it, wait out the grace, let the lines go."""
        await self._spend(self._cool_down_s())
        self._last_try_s = self._world.monotonic()
        connection = Connection(self._buffer, lambda: self._spend(FLUSH_S), self._drained)
        self._connection = connection
        self._spawn(lambda: self._run(connection))
        self._spawn(lambda: self._watch(connection))
        await self._spend(GRACE_S)
        if self._connection is connection:
            self._failures = 0
            self._moved_at_s = self._world.monotonic()
            connection.piping = True
        self._setting_up = False
        waited = [*self._waiting, *self._behind]
        self._waiting, self._behind = [], []
        for line in waited:
            self._write(line)
        if self._connection is not None:
            self._connection.stir()

    def _cool_down_s(self) -> float:
        if self._last_try_s is None:
            return 0.0
        pause_s = min(COOL_DOWN_S * 2.0 ** min(self._failures, 20), MAX_COOL_DOWN_S)
        return max(pause_s - (self._world.monotonic() - self._last_try_s) * self._speed, 0.0)

    async def _run(self, connection: Connection) -> None:
        try:
            with connection.scope:
                await self._send(connection)
        except OSError:
            pass  # a cut; what follows is the same as after an answer
        self._failed(connection)

    async def _watch(self, connection: Connection) -> None:
        """End it when no line has moved for a while, or when an answer lies in the socket."""
        while self._connection is connection:
            idle_s = (self._world.monotonic() - self._moved_at_s) * self._speed
            left_s = IDLE_S - (idle_s if connection.piping else 0.0)
            if left_s <= 0 or connection.answered_early():
                self._failed(connection)
                if connection.sending:
                    connection.scope.cancel()
            else:
                await self._spend(max(min(left_s, LOOK_EVERY_S), LEAST_S))

    def _failed(self, connection: Connection) -> None:
        if self._connection is connection:
            self._failures += 1
            self._connection = None
            connection.end()
