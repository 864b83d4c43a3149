"""An ordeal: one device lives through its story while it is interrupted again and again, at random instants.

A town is one process, the device another: `baserunner run` itself, forked from one that has imported everything. An
interruption is a SIGKILL, or a power cut: the file system under the running agent is shut down without flushing its
log, unmounted and mounted again, and the Supervisor's host goes down with it. After each one the journal is looked at
as it was left, before any agent wakes up. In the end the device is left in peace, and must come to its right end.

Rules
- The agent tells a pipe which facts are written, and when all of them are durable. After a SIGKILL every written fact
  must be there; after a power cut, every durable one.
- What is acknowledged while the power goes does not count: a sync in flight may return 0 there (journal note, 4.2).
- Whatever Cloudly has acked must be there too.
"""

from __future__ import annotations

import contextlib
import os
import random  # noqa: TID251 - when it is interrupted; the seed is printed
import select
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from interfaces.desired import UpdatePolicy
from interfaces.world import RealWorld
from journal.facts import Fact, Lane
from journal.journal import Journal
from journal.reader import Reader, open_reader
from journal.verify import verify
from tests.kill.loop_disk import LoopDisk
from tests.kill.town import KEY, Story, Town, fork, wait_for

STORY: Story = (("1.0.0", None), ("1.1.0", "crash-after-start"), ("1.2.0", None))
ENDS = {
    "enrollment/1": "enrolled",
    "app-update/1": "succeeded",
    "app-update/2": "rolled-back",
    "app-update/3": "succeeded",
}
POLICY = UpdatePolicy(
    health_soak_s=0.5, health_deadline_s=4, apply_deadline_s=60, download_deadline_s=60
)
WAKING_S = 0.2
"""Every fourth interruption comes within so long of the start: while the journal is opened, or made."""
AWAKE_S = (0.1, 0.6, 2.5)
"""The others come within so long of the first fact: it has just woken up, it acts, it comes further."""
PATIENCE_S = 90.0
"""And in the end for so long at most."""


class Interruption(Protocol):
    """What happens to the agent, and what survives it."""

    soon_survives: bool
    """Whether a fact must be there that was written and not yet synced."""
    new_boot: bool
    """Whether the host boots again."""

    @property
    def data(self) -> Path:
        """The data directory."""

    def happen(self, pid: int, town: Town) -> None:
        """To this agent, and to the town."""

    def recover(self) -> None:
        """The agent is dead: make the data directory readable again."""


@dataclass
class Sigkill:
    data: Path
    soon_survives = True
    new_boot = False

    def happen(self, pid: int, town: Town) -> None:  # noqa: ARG002 - the town does not notice
        os.kill(pid, signal.SIGKILL)

    def recover(self) -> None:
        """Nothing was lost with the process."""


@dataclass
class PowerCut:
    disk: LoopDisk
    soon_survives = False
    new_boot = True

    @property
    def data(self) -> Path:
        return self.disk.at

    def happen(self, pid: int, town: Town) -> None:
        self.disk.cut_the_power()
        os.kill(pid, signal.SIGKILL)
        town.cut_power()

    def recover(self) -> None:
        self.disk.unmount()
        problem = self.disk.mount()
        assert not problem, problem


@dataclass
class Outcome:
    """What one device has shown."""

    interruptions: int = 0
    acknowledged: int = 0
    """Facts that had to be there, summed over all interruptions."""
    unasked: int = 0
    """Facts that were there although nobody had been told so: allowed, and handled."""
    found_in: Counter[str] = field(default_factory=Counter)
    """In which state of which machine the device was when it was interrupted."""
    wrong: list[str] = field(default_factory=list)


@dataclass
class Ordeal:
    """`plant`: breaks one promise in the agent's process."""

    root: Path
    interruption: Interruption
    rng: random.Random
    plant: Callable[[], None] = lambda: None
    patience_s: float = PATIENCE_S
    outcome: Outcome = field(default_factory=Outcome)
    _boots: int = 0

    def run(self, times: int) -> Outcome:
        self.town = Town(self.root, STORY, POLICY)
        self.town.start()
        self._covered: dict[str, str] = {}
        try:
            for _ in range(times):
                self._interrupt()
            self._let_it_end()
        finally:
            self.town.stop()
        self.outcome.wrong += self._at_the_end()
        return self.outcome

    # -- one interruption ------------------------------------------------------------------------

    def _interrupt(self) -> None:
        pid, told = self._start()
        lines = _Lines(told)
        if self.rng.random() < 0.25:
            lines.read_for(self.rng.uniform(0.0, WAKING_S))
        else:
            lines.wait_for_one(min(self.patience_s, 10.0))
            lines.read_for(self.rng.uniform(0.0, self.rng.choice(AWAKE_S)))
        self.interruption.happen(pid, self.town)
        if self.interruption.soon_survives:
            lines.read_all()
        status = wait_for(pid)
        os.close(told)
        self.interruption.recover()
        self._covered |= lines.taken(soon_too=self.interruption.soon_survives)
        if not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
            self.outcome.wrong.append(f"the agent had ended by itself: {status}, {self._log()}")
        self.outcome.interruptions += 1
        self.outcome.wrong += self._look()
        self.outcome.found_in[self._standing()] += 1

    def _look(self) -> Iterator[str]:
        """At a copy, so that nothing is mended by looking."""
        with self._copy() as reader:
            facts = {} if reader is None else {_key(f): f.hash.hex() for f in reader.facts()}
            if reader is not None:
                yield from (f"verify: {problem.what}" for problem in verify(reader).problems)
                self._covered = {
                    key: hash_ for key, hash_ in self._covered.items() if not _trimmed(reader, key)
                }
        lost = [key for key, hash_ in self._covered.items() if facts.get(key) != hash_]
        if lost:
            yield f"{len(lost)} acknowledged facts were lost: {', '.join(lost[:4])}"
        for lane, (seq, hash_) in self.town.acked().items():
            if seq and facts and facts.get(f"{lane} {seq}", hash_) != hash_:
                yield f"Cloudly has another fact at {lane} {seq}"
            if seq > max((int(k.split()[1]) for k in facts if k.startswith(lane)), default=0):
                yield f"Cloudly has {lane} {seq}, which was lost"
        self.outcome.acknowledged += len(self._covered)
        self.outcome.unasked += len(facts.keys() - self._covered.keys())

    def _standing(self) -> str:
        """Where the story stood, in a word."""
        with self._copy() as reader:
            for machine in ("app-update", "enrollment"):
                if reader is not None and (infos := reader.streams(machine)):
                    return f"{machine} {infos[-1].state}"
            return "an empty journal" if reader else "no journal yet"

    @contextlib.contextmanager
    def _copy(self) -> Iterator[Reader | None]:
        home, copy = self.interruption.data / "baseos", self.root / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        for name in ("journal.db", "journal.db-wal"):
            if (home / name).exists():
                shutil.copy(home / name, copy / name)
        if not (copy / "journal.db").exists():
            yield None
            return
        with open_reader(copy) as reader:
            yield reader

    # -- the end ---------------------------------------------------------------------------------

    def _let_it_end(self) -> None:
        pid, told = self._start()
        lines, world = _Lines(told), RealWorld()
        deadline = world.monotonic() + self.patience_s
        while world.monotonic() < deadline and not self._is_over():
            lines.read_for(0.1)
        os.kill(pid, signal.SIGTERM)
        lines.read_all()
        status = wait_for(pid)
        os.close(told)
        self._covered |= lines.taken(soon_too=True)
        if status:
            self.outcome.wrong.append(f"the last agent ended with {status}: {self._log()}")

    def _is_over(self) -> bool:
        core = self.town.core()
        return self._ends() == ENDS and bool(core) and core[-1][0] == self._core()[-1][0]

    def _at_the_end(self) -> Iterator[str]:
        yield from self._look()
        if (ends := self._ends()) != ENDS:
            yield f"it ended as {ends}: {self._log()}"
        if self.town.core() != self._core():
            yield "Cloudly has another story"
        releases, most = len(STORY), self.outcome.interruptions + 2
        if any(times > releases * 2 + most for times in self.town.told().values()):
            yield f"the Supervisor was told again and again: {self.town.told()}"

    def _ends(self) -> dict[str, str]:
        home = self.interruption.data / "baseos"
        if not (home / "journal.db").exists():
            return {}
        with open_reader(home) as reader:
            machines = ("enrollment", "app-update")
            return {info.name: info.state for name in machines for info in reader.streams(name)}

    def _core(self) -> list[tuple[int, str]]:
        with open_reader(self.interruption.data / "baseos") as reader:
            return [(fact.seq, fact.hash.hex()) for fact in reader.facts(lane=Lane.CORE)]

    # -- the agent's process ---------------------------------------------------------------------

    def _start(self) -> tuple[int, int]:
        """Its pid, and where it acknowledges."""
        self._boots += 1
        told, tell = os.pipe()
        pid = fork(lambda: self._be_baserunner(tell))
        os.close(tell)
        return pid, told

    def _be_baserunner(self, tell: int) -> None:
        log = os.open(self.root / "agent.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.stdout = sys.stderr = os.fdopen(log, "w", buffering=1)
        os.environ.clear()
        os.environ |= self._environment()
        if self.interruption.new_boot:
            _be_of_boot(f"00000000-0000-4000-8000-{self._boots:012d}")
        _acknowledge_to(tell)
        self.plant()
        sys.argv = ["baserunner", "run"]
        from baserunner.cli import main

        try:
            main()
        except SystemExit as end:
            os._exit(int(end.code or 0))

    def _environment(self) -> dict[str, str]:
        return {
            "BASEOS_CLOUDLY_URL": self.town.urls[0],
            "BASEOS_JOIN_TOKEN": self.town.token,
            "BASEOS_DATA_DIR": str(self.interruption.data),
            "BASEOS_LOCK_DIR": str(self.town.locks),
            "BASEOS_HEARTBEAT_MIN_S": "0.05",
            "BASEOS_SUPERVISOR_POLL_S": "0.04",
            "BALENA_SUPERVISOR_ADDRESS": self.town.urls[1],
            "BALENA_SUPERVISOR_API_KEY": KEY,
            "BALENA_DEVICE_UUID": self.town.uuid,
            "SERVEZONE_RUNTIME": "baseos",
        }

    def _log(self) -> str:
        return " | ".join((self.root / "agent.log").read_text().splitlines()[-5:])


class _Lines:
    """What the agent has acknowledged, read from its pipe."""

    def __init__(self, told: int) -> None:
        self._told = told
        self._text = b""

    def read_for(self, seconds: float) -> None:
        world = RealWorld()
        deadline = world.monotonic() + seconds
        while (left := deadline - world.monotonic()) > 0:
            if select.select([self._told], [], [], left)[0] and not self._read():
                break

    def wait_for_one(self, seconds: float) -> None:
        if not self._text and select.select([self._told], [], [], seconds)[0]:
            self._read()

    def read_all(self) -> None:
        """Until the agent is gone."""
        while self._read():
            pass

    def _read(self) -> bytes:
        piece = os.read(self._told, 65536)
        self._text += piece
        return piece

    def taken(self, *, soon_too: bool) -> dict[str, str]:
        """Lane and seq to hash, of what had to be there; a line cut short was not said."""
        whole = self._text.decode().split("\n")[:-1]
        last = max((n for n, line in enumerate(whole) if line == "durable"), default=0)
        said = [line.split() for line in (whole if soon_too else whole[:last])]
        return {f"{words[0]} {words[1]}": words[2] for words in said if len(words) == 3}


def _acknowledge_to(tell: int) -> None:
    """A line for each fact that was written, and one whenever all that was written is durable."""
    took, all_durable = Journal._took, Journal._all_durable

    def written(journal: Journal, fact: Fact, *, soon: bool) -> None:
        os.write(tell, f"{fact.lane} {fact.seq} {fact.hash.hex()}\n".encode())
        took(journal, fact, soon=soon)

    def durable(journal: Journal) -> None:
        all_durable(journal)
        os.write(tell, b"durable\n")

    Journal._took = written  # type: ignore[method-assign, assignment]
    Journal._all_durable = durable  # type: ignore[method-assign, assignment]


def _be_of_boot(boot: str) -> None:
    def boot_id(self: RealWorld) -> str:  # noqa: ARG001 - the real one's
        return boot

    RealWorld.boot_id = boot_id  # type: ignore[method-assign]


def _key(fact: Fact) -> str:
    return f"{fact.lane} {fact.seq}"


def _trimmed(reader: Reader, key: str) -> bool:
    lane, seq = key.split()
    return int(seq) <= reader.base(Lane(lane)).seq
