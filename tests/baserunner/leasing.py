"""A device as far as leases go: a journal and a lock directory on a real disk, time virtual."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from pydantic import SecretStr

from baserunner.clock import Clock
from baserunner.locks import UpdateLock
from baserunner.locks.leases import Leases
from interfaces.local import Acquire, Held, Lock, Release, Renew
from interfaces.world import new_id
from journal.facts import Fact
from journal.journal import Journal
from simulators.world import SimWorld


class Device:
    """`busy`: why no lease may begin; `changes`: how often one changed."""

    def __init__(self, root: Path, *, seed: int = 1) -> None:
        self.root = root
        self.world = SimWorld(seed)
        self.clock = Clock(self.world)
        self.lives = 0
        self.busy = ""
        self.changes = 0
        self.points: Callable[[str], None] = lambda _: None
        self.home.mkdir()
        self.locks = root / "locks"
        self.start()

    @property
    def home(self) -> Path:
        return self.root / f"home-{self.lives}"

    def start(self) -> None:
        self.journal = Journal.open(
            self.home,
            stamp=self.clock.stamp,
            new_epoch=lambda: new_id(self.world),
            points=self._pass,
        )
        self.file = UpdateLock(self.locks)
        self.leases = Leases(
            self.journal,
            self.world,
            self.file,
            home=self.home,
            why_not_lock=lambda: self.busy,
            changed=self._changed,
        )

    def _pass(self, point: str) -> None:
        self.points(point)

    def _changed(self) -> None:
        self.changes += 1

    def stop(self) -> None:
        self.journal.close()
        self.file.close()

    def crash(self) -> None:
        """The process is gone at this instant, the host goes on; nothing is closed properly."""
        before, self.lives = self.home, self.lives + 1
        shutil.copytree(before, self.home, ignore=shutil.ignore_patterns("*-shm", "*.lock"))
        self.stop()  # of what nobody reads any more

    def reboot(self) -> None:
        """The host too: the lock directory is a tmpfs."""
        self.crash()
        shutil.rmtree(self.locks, ignore_errors=True)
        self.world.reboot()

    def jump(self, **by: float) -> None:
        self.world.jump(timedelta(**by))

    # -- a neighbour -----------------------------------------------------------------------------

    def acquire(
        self, *, owner: str = "backup", ttl_s: float = 60.0, request: str | None = None
    ) -> Held:
        ask = Acquire(
            owner=owner,
            reason="nightly backup",
            ttl_s=ttl_s,
            request_id=request or new_id(self.world),
        )
        return self.leases.acquire(ask)

    def renew(self, held: Held, *, ttl_s: float = 60.0, key: SecretStr | None = None) -> Lock:
        return self.leases.renew(
            held.lock.lock, Renew(key=held.key if key is None else key, ttl_s=ttl_s)
        )

    def release(self, held: Held, *, key: SecretStr | None = None) -> Lock:
        return self.leases.release(held.lock.lock, Release(key=held.key if key is None else key))

    def facts(self, stream: str = "lock/1") -> list[Fact]:
        return self.journal.facts(stream=stream)

    def kinds(self, stream: str = "lock/1") -> list[str]:
        return [fact.kind for fact in self.facts(stream)]

    def files(self) -> set[str]:
        return {path.name for path in self.locks.glob("*")} if self.locks.is_dir() else set()
