"""Leases: update locks that neighbours hold, with an owner, a reason and an end.

Rules:
- The journal is the truth: a lease is durable before it is answered, and what has ended by time is written down before
  anything is begun that it stood in the way of (`why_not`, asked in the same moment in which the intent is written).
- None begins while the Supervisor may be at work for us, or is about to be (`why_not_lock`).
- The file lock is there before the lease is, and as long as one is (`settle`); what a crash left is put right then.
- The same request is told the same lease and the same key, in this run and in the next, and never a second lease.

Every call is synchronous, in the loop that the journal belongs to.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

from pydantic import SecretStr

from baserunner.locks.file import UpdateLock
from baserunner.locks.keys import LockKeys, fits, sha256
from baserunner.locks.machine import CHART, MACHINE, Lease
from baserunner.locks.told import Unreadable, ended_leases, holders, open_leases
from baserunner.logs import Changes
from baserunner.problems import LeaseRefused, LockProblem
from interfaces.local import MOST_LOCKS, Acquire, Held, Lock, LockState, Release, Renew
from interfaces.world import World, new_id, now_ms
from journal.journal import Journal
from journal.recall import Stream, recall

log = logging.getLogger(__name__)

REMEMBERED = 2 * MOST_LOCKS
"""So many that have ended are remembered, for who asks again."""
MOST_BOOTS = 3
"""A lease that outlived so many boots without a word from its holder ends: in a boot loop an update may be the cure."""
BACK_WITHIN_S = 60.0
"""A holder that comes back with the host has at least so long to renew, if its lease was given for so long."""
LOOK_BACK = 50
"""Among so many newest facts it is looked how long the last boot lasted."""
LEAST_STEP_S = 1.0
"""A renewal that would move the end by less is answered and not written: the flash outlives an eager holder."""

Leased = Stream[Lease]


class Leases:
    def __init__(  # noqa: PLR0913 - its neighbours, each once
        self,
        journal: Journal,
        world: World,
        file_lock: UpdateLock,
        *,
        home: Path,
        why_not_lock: Callable[[], str],
        changed: Callable[[], None],
    ) -> None:
        """`why_not_lock`: why none may begin now, in words. `changed`: told after each fact of a lease."""
        self._journal = journal
        self._world = world
        self._file_lock = file_lock
        self._keys = LockKeys(home, world)
        self._why_not_lock = why_not_lock
        self._changed = changed
        self._started_s = world.monotonic()
        self._trouble = Changes()
        self._begun = False
        self._held: dict[str, Leased] = {}
        """By the id of the lease, the oldest first. What has ended by time stays until that is written."""
        self._ended: dict[str, Leased] = {}
        self._unreadable: list[Unreadable] = []

    # -- what a neighbour asks -------------------------------------------------------------------

    def acquire(self, ask: Acquire) -> Held:
        """Raises LeaseRefused, and JournalProblem when it cannot be written: then there is none."""
        self.expire()
        request = sha256(ask.request_id)
        for stream in (*self._held.values(), *self._ended.values()):
            if stream.believed.request_sha256 == request:
                return self._again(stream, ask)
        self._check_room()
        lock = new_id(self._world)
        key = self._keys.of(lock)
        self._be_there()
        try:
            stream = self._record_new(ask, lock, key, request)
        finally:
            self.settle()
        self._changed()
        return Held(lock=self._told(stream), key=key)

    def renew(self, lock: str, ask: Renew) -> Lock:
        """Its time from now on. Raises LeaseRefused, and JournalProblem."""
        self.expire()
        stream = self._of(lock, ask.key)
        if stream.ended:
            raise LeaseRefused("not-found", _over(stream))
        lease = stream.believed
        if ask.ttl_s != lease.ttl_s or abs(ask.ttl_s - self._left_s(lease)) >= LEAST_STEP_S:
            # A power cut may take it back only where that changes nothing: after a boot the whole time counts anew.
            stream.record("renewed", {"ttl_s": ask.ttl_s}, soon=ask.ttl_s == lease.ttl_s)
            self._changed()
        return self._told(stream)

    def release(self, lock: str, ask: Release) -> Lock:
        """The same again is the same answer. Raises LeaseRefused, and JournalProblem."""
        self.expire()
        stream = self._of(lock, ask.key)
        if not stream.ended:
            self._end(stream, "released", {"reason": "released by its holder"})
            self._after_an_end()
        return self._told(stream)

    # -- what an operator orders -----------------------------------------------------------------

    def break_(self, lock: str, *, by: str, reason: str) -> Lock:
        """End it whatever its holder says. `lock`: its id or stream (lock/3). Raises LeaseRefused, JournalProblem."""
        self.expire()
        known = {**self._ended, **self._held}
        named = [stream for stream in known.values() if lock in {stream.name, stream.believed.lock}]
        if not named:
            raise LeaseRefused(
                "not-found", f"there is no update lock {lock}: see `baserunner locks`"
            )
        stream = named[0]
        if stream.ended:
            raise LeaseRefused("not-found", _over(stream))
        self._end(stream, "broken", {"by": by, "reason": reason})
        log.warning("%s of %s was broken by %s: %s", stream.name, stream.believed.owner, by, reason)
        self._after_an_end()
        return self._told(stream)

    # -- what the agent asks ---------------------------------------------------------------------

    def held(self) -> tuple[Lock, ...]:
        """Those that are live, the oldest first."""
        self._begin()
        return tuple(self._told(stream) for stream in self._live())

    def streams(self) -> tuple[Leased, ...]:
        """Those that are live, the oldest first. Whoever has them need not read them: days of renewals are long."""
        self._begin()
        return tuple(self._live())

    def expire(self) -> None:
        """Write down what has ended by time. Raises JournalProblem."""
        self._begin()
        over = [stream for stream in self._held.values() if self._left_s(stream.believed) <= 0]
        for stream in over:
            self._end(stream, "expired", {"reason": "its time was over, and nobody had renewed it"})
        over_unread = [one for one in self._unreadable if self._unread_left_s(one) <= 0]
        for one in over_unread:
            self._unreadable.remove(one)
            log.warning("%s cannot be read, and its time is over: it holds nothing up", one.stream)
        if over or over_unread:
            self._after_an_end()

    def next_end_s(self) -> float | None:
        """How long until the first one ends; None: there is none."""
        self._begin()
        ends = [self._left_s(stream.believed) for stream in self._held.values()]
        ends += [self._unread_left_s(one) for one in self._unreadable]
        return min(ends, default=None)

    def why_not(self) -> str:
        """Who holds updates up, why and until when; empty: nobody. What has ended is written first: JournalProblem."""
        self.expire()
        told = holders(stream.believed for stream in self._held.values())
        unread = "; ".join(
            f"{one.stream} is of a newer agent and cannot be read: it counts for an hour"
            for one in self._unreadable
        )
        return "; ".join(words for words in (told, unread) if words)

    def settle(self) -> None:
        """The lock's files as they should be; a problem is logged, and the next look tries again."""
        try:
            if self._held or self._unreadable:
                self._file_lock.hold()
            else:
                self._file_lock.let_go()
        except LockProblem as problem:
            self._trouble.tell(logging.WARNING, log, str(problem))
        else:
            self._trouble.tell(logging.INFO, log, "")

    # -- inside ----------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Waking up is reading: once, before anything else."""
        if self._begun:
            return
        streams, self._unreadable = open_leases(self._journal)
        self._held = {stream.believed.lock: stream for stream in streams}
        ended = ended_leases(self._journal, REMEMBERED)
        self._ended = {stream.believed.lock: stream for stream in ended}
        for stream in streams:
            if stream.believed.boot_id != self._world.boot_id():
                self._count_anew(stream)
        self._begun = True
        self.settle()

    def _count_anew(self, stream: Leased) -> None:
        """Another boot than the one in which its time counted."""
        lease = stream.believed
        rest_s = lease.rest_s(self._last_mono_ms(lease.boot_id))
        if lease.boots >= MOST_BOOTS:
            why = f"the host booted {lease.boots + 1} times since its holder was heard"
            self._end(stream, "expired", {"reason": why})
        elif rest_s <= 0:
            self._end(stream, "expired", {"reason": "its time was over when the host went down"})
        else:
            rest_s = min(lease.ttl_s, max(rest_s, BACK_WITHIN_S))
            stream.record("resumed", {"rest_s": rest_s})

    def _last_mono_ms(self, boot_id: str) -> int | None:
        newest = self._journal.facts(after=max(0, self._journal.newest_n() - LOOK_BACK))
        return max((fact.mono_ms for fact in newest if fact.boot_id == boot_id), default=None)

    def _check_room(self) -> None:
        if why_not := self._why_not_lock():
            raise LeaseRefused("locked-out", why_not)
        if len(self._held) + len(self._unreadable) >= MOST_LOCKS:
            raise LeaseRefused(
                "busy", f"{MOST_LOCKS} update locks are held: see `baserunner locks`"
            )

    def _be_there(self) -> None:
        try:
            self._file_lock.hold()
        except LockProblem as problem:
            self.settle()
            raise LeaseRefused("unavailable", str(problem)) from None

    def _record_new(self, ask: Acquire, lock: str, key: SecretStr, request: str) -> Leased:
        stream = recall(self._journal, self._journal.next_stream_name(CHART.name), MACHINE)
        stream.record(
            "acquired",
            {
                "lock": lock,
                "owner": ask.owner,
                "reason": ask.reason,
                "ttl_s": ask.ttl_s,
                "key_sha256": sha256(key.get_secret_value()),
                "request_sha256": request,
            },
        )
        self._held[lock] = stream
        return stream

    def _again(self, stream: Leased, ask: Acquire) -> Held:
        lease = stream.believed
        if lease.owner != ask.owner:
            raise LeaseRefused("forbidden", "another owner has used that request_id: draw another")
        if stream.ended:
            raise LeaseRefused("conflict", f"{_over(stream)}: ask with another request_id")
        key = self._keys.of(lease.lock)
        if not fits(key, lease.key_sha256):
            said = "its key cannot be told again: the device's secret is another one since"
            raise LeaseRefused("conflict", f"{said}; ask with another request_id")
        return Held(lock=self._told(stream), key=key)

    def _of(self, lock: str, key: SecretStr) -> Leased:
        stream = self._held.get(lock) or self._ended.get(lock)
        if stream is None:
            raise LeaseRefused("not-found", "there is no such update lock: it ended, or never was")
        if not fits(key, stream.believed.key_sha256):
            raise LeaseRefused("forbidden", "the key is not that of this update lock")
        return stream

    def _end(self, stream: Leased, kind: str, data: dict[str, object]) -> None:
        stream.record(kind, data)
        self._held.pop(stream.believed.lock, None)
        self._ended[stream.believed.lock] = stream
        while len(self._ended) > REMEMBERED:
            del self._ended[next(iter(self._ended))]

    def _after_an_end(self) -> None:
        self.settle()
        self._changed()

    def _live(self) -> Iterator[Leased]:
        return (one for one in self._held.values() if self._left_s(one.believed) > 0)

    def _left_s(self, lease: Lease) -> float:
        left_s = lease.left_s(self._world.boot_id(), self._world.monotonic())
        return lease.lasts_s if left_s is None else left_s

    def _unread_left_s(self, one: Unreadable) -> float:
        world = self._world
        return one.left_s(world.boot_id(), world.monotonic(), self._started_s)

    def _told(self, stream: Leased) -> Lock:
        lease = stream.believed
        left_s = 0.0 if stream.ended else self._left_s(lease)
        # One that a damaged journal closed where it stood has no fact of its end.
        state = LockState.EXPIRED if stream.ended and stream.state == "held" else stream.state
        return Lock(
            lock=lease.lock,
            owner=lease.owner,
            reason=lease.holds_for,
            state=LockState(state),
            since_ms=lease.since_ms,
            until_ms=None if stream.ended else now_ms(self._world) + round(left_s * 1000),
            left_s=left_s,
            ended_why=lease.ended_why,
        )


def _over(stream: Leased) -> str:
    return f"that update lock has ended: {stream.believed.ended_why or stream.state}"
