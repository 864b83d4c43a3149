"""Takes connections in, or turns them away: who it is and how many there are is decided before anything is read.

Rules:
- A peer on the socket is known by `SO_PEERCRED`: its uid must be allowed. Across pid namespaces the pid is 0, the uid
  is right (measured, the reliability note).
- Turning somebody away costs one write. More of them than that is good for are left to the kernel for a moment, so
  that no number of them delays the heartbeat.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from collections import Counter

import anyio.abc
from starlette.types import Scope

from baserunner.local_api.answers import RETRY_AFTER_S, Refusal, refused_raw
from baserunner.local_api.connection import Http, connection
from baserunner.local_api.limits import (
    MOST_CONNECTIONS,
    MOST_OF_A_PEER,
    TAKE_IN_BURST,
    TAKE_IN_RATE,
    Bucket,
    Limits,
)
from interfaces.world import World

log = logging.getLogger(__name__)

AT_ONCE = 16
"""Connections looked at before the rest of the agent has its turn."""
PAUSE_S = 0.02
TELL_EVERY_S = 60.0
UCRED = struct.Struct("3i")
TOO_FAST = refused_raw(Refusal(429, "busy", retry_after_s=RETRY_AFTER_S))
TOO_MANY = refused_raw(Refusal(503, "busy", retry_after_s=RETRY_AFTER_S))


class Doorman:
    """At the door from `begin` to `end`."""

    def __init__(self, world: World, uids: frozenset[int], tasks: anyio.abc.TaskGroup) -> None:
        self._world = world
        self._uids = uids
        self._tasks = tasks
        self._limits = Limits()
        self._looks = Bucket(TAKE_IN_RATE, TAKE_IN_BURST)
        self._inside: Counter[int | None] = Counter()
        """Open connections by uid."""
        self._refused: Counter[str] = Counter()
        self._told_at = -TELL_EVERY_S
        self._listeners: tuple[socket.socket, ...] = ()
        self._pause: asyncio.TimerHandle | None = None
        self._http: Http | None = None

    def begin(self, listeners: tuple[socket.socket, ...], http: Http) -> None:
        self._listeners, self._http = listeners, http
        self._listen()

    def end(self) -> None:
        """Nobody is taken in any more, and who is inside is put out."""
        self._look_away()
        if self._pause is not None:
            self._pause.cancel()
        if self._http is not None:
            self._http.abort()

    def refused(self, code: str, scope: Scope) -> None:
        """Somebody inside was refused at the gate."""
        self._count(f"{code} for uid {scope['state']['uid']}")

    # -- one after the other ---------------------------------------------------------------------

    def _listen(self) -> None:
        self._pause = None
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            loop.add_reader(listener, self._take_in, listener)

    def _look_away(self) -> None:
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            loop.remove_reader(listener)

    def _rest(self) -> None:
        self._look_away()
        self._pause = asyncio.get_running_loop().call_later(PAUSE_S, self._listen)

    def _take_in(self, listener: socket.socket) -> None:
        for _ in range(AT_ONCE):
            if self._looks.fill(self._world.monotonic()) < 1:
                self._rest()
                return
            try:
                peer, _ = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # too many open files: others have them
                self._count(f"connection: {error.strerror}")
                self._rest()
                return
            self._looks.take(self._world.monotonic())
            peer.setblocking(False)
            self._judge(peer)

    def _judge(self, peer: socket.socket) -> None:
        now_s = self._world.monotonic()
        uid = _uid(peer)
        if uid is not None and uid not in self._uids:
            self._count(f"uid {uid}")
            _turn_away(peer, _not_you(uid) if self._limits.may_be_told(now_s) else b"")
        elif not self._limits.may_ask(uid, now_s):
            self._count(f"too many requests of uid {uid}")
            _turn_away(peer, TOO_FAST)
        elif self._inside.total() >= MOST_CONNECTIONS or self._inside[uid] >= MOST_OF_A_PEER:
            self._count(f"too many connections of uid {uid}")
            _turn_away(peer, TOO_MANY)
        else:
            self._inside[uid] += 1
            self._tasks.start_soon(self._admit, peer, uid)

    async def _admit(self, peer: socket.socket, uid: int | None) -> None:
        assert self._http is not None  # noqa: S101 - begun
        made = connection(self._http, uid, lambda: self._left(uid))
        try:
            await asyncio.get_running_loop().connect_accepted_socket(made, peer)
        except OSError:  # gone already
            peer.close()
            self._left(uid)

    def _left(self, uid: int | None) -> None:
        self._inside[uid] -= 1

    def _count(self, what: str) -> None:
        """Told at once, and then once a minute with how many there were: a flood is one line."""
        self._refused[what] += 1
        now_s = self._world.monotonic()
        if now_s - self._told_at < TELL_EVERY_S:
            return
        self._told_at = now_s
        counted = ", ".join(f"{what} ({times})" for what, times in self._refused.most_common(5))
        self._refused.clear()
        log.warning("the local API refused: %s", counted)


def _uid(peer: socket.socket) -> int | None:
    """None: it came over loopback, where there are no credentials. Source: unix(7), SO_PEERCRED."""
    if peer.family != socket.AF_UNIX:
        return None
    found = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size)
    return int(UCRED.unpack(found)[1])


def _not_you(uid: int) -> bytes:
    words = f"uid {uid} may not ask here: see BASEOS_LOCAL_API_UIDS."
    return refused_raw(Refusal(403, "not-allowed", words))


def _turn_away(peer: socket.socket, answer: bytes) -> None:
    """Without a word where there is none: a stranger who keeps asking is not answered."""
    with contextlib.suppress(OSError):
        if answer:
            peer.send(answer)
    peer.close()
