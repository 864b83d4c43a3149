"""The lines that go along with an attempt: progress while it runs, and when it fails the last lines of three logs.

Rules:
- They are notes in the attempt's stream, kind `lines`, in the log lane: our own log's lines, the Supervisor's, and
  those of the host it runs on. They are written just before the outcome, so that its sync makes both durable.
- Nobody waits long for them, and they endanger nothing: no lines is said in words (`why`), never an error.
- Bounded: a line has 500 characters, a note 100 lines and 16 KiB, an attempt 64 KiB from each source. The newest are
  kept; `omitted` counts the older ones that were there.
- An attempt that was killed between its lines and its outcome gathers again: `again` is true in the second ones.
- The lines of others may hold the secrets of others: what has the form of a secret is replaced, and ours by value.
"""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import anyio

from baserunner.drive import Happened
from baserunner.logs import one_line
from baserunner.machines import MACHINES
from baserunner.neighbours.host import Host
from baserunner.neighbours.supervisor import UNIT, Supervisor
from baserunner.problems import NeighbourProblem
from baserunner.recent import RecentLines
from interfaces.world import World
from journal.facts import Lane
from journal.journal import Journal
from journal.problems import NoSpace
from journal.recall import Stream

log = logging.getLogger(__name__)

KIND = "lines"
FAILURES = frozenset(
    {
        "download-failed",
        "apply-unclear",
        "apply-failed",
        "health-failed",
        "rollback-failed",
        "reboot-failed",
    }
)
"""Outcomes that lines go along with."""
GATHERED_WITHIN_S = 5.0
MAX_LINES = 100
MAX_LINE = 500
LOOKED_AT = 2000
"""Of a longer line no more characters are looked at: patterns are slow on lines of a hundred thousand."""
MAX_NOTE_BYTES = 16_384
MAX_SOURCE_BYTES = 65_536
OVERHEAD_BYTES = 1024
"""What a note holds beside its lines, generously."""
MAX_WHY = 300
ROOM_BYTES = 1_048_576
"""With less room than this on the disk there are no lines: what is left is for outcomes."""
MAX_PROGRESS_NOTES = 20

NAMES_AN_ATTEMPT = re.compile(rf"\b(?:{'|'.join(map(re.escape, MACHINES))})/\d+\b")
ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
JOURNALCTLS_OWN = re.compile(r"^-- (?:Logs begin|Journal begins|No entries).*--$")
SECRETS_OF_OTHERS = re.compile(
    r"\beyJ[\w-]+\.[\w-]+\.[\w-]*"
    r"|(://)[^/\s:@]+:[^/\s@]+(?=@)"
    r"""|((?:api_?key|token|secret|passw(?:or)?d|passphrase|psk|authorization)\\?["']?\s*[:=]\s*\\?["']?)"""
    r"""(?!\[secret\])[^\s"'&,;\\]+""",
    re.IGNORECASE,
)
"""A JWT, the user of a URL, and whatever is called a secret."""


class Source(StrEnum):
    AGENT = "agent"
    SUPERVISOR = "supervisor"
    HOST = "host"


@dataclass(frozen=True, slots=True)
class Told:
    """What one source had to say, oldest first."""

    source: Source
    lines: Sequence[str] = ()
    omitted: int = 0
    why: str = ""
    since_ms: int | None = None


class AttemptLog:
    """For one life of the agent."""

    def __init__(  # noqa: PLR0913 - its neighbours, each once
        self,
        *,
        journal: Journal,
        world: World,
        supervisor: Supervisor | None,
        host: Host,
        recent: RecentLines,
        redact: Callable[[str], str],
    ) -> None:
        self._journal = journal
        self._world = world
        self._supervisor = supervisor
        self._host = host
        self._recent = recent
        self._redact = redact
        self._progress: Counter[str] = Counter()

    async def before(self, stream: Stream[Any], outcome: Happened) -> None:
        """Attach the last lines to an attempt that is about to fail. Raises JournalProblem only when nothing works."""
        if outcome.kind not in FAILURES:
            return
        try:
            told = await self._gather(stream)
        except Exception:  # lines are commentary: the outcome is not theirs to lose
            log.exception("%s: its lines could not be gathered", stream.name)
            return
        again, spent = self._before_now(stream)
        for one in told:
            left = MAX_SOURCE_BYTES - spent[one.source]
            data = note(one, within=min(left, MAX_NOTE_BYTES), redact=self._redact)
            if left < OVERHEAD_BYTES:
                continue
            try:
                self._journal.note(stream.name, KIND, {**data, "again": True} if again else data)
            except NoSpace as full:
                log.warning("%s goes without lines: %s", stream.name, full)
                return

    def progressed(self, stream: str, percent: int) -> None:
        """Note it, as long as this attempt has not been noted too often; that it is complete always has its place."""
        if stream not in self._progress:
            earlier = self._journal.facts(lane=Lane.LOG, stream=stream)
            self._progress = Counter({stream: sum(fact.kind == "progressed" for fact in earlier)})
        left = MAX_PROGRESS_NOTES - self._progress[stream]
        if left > (0 if percent == 100 else 1):
            self._progress[stream] += 1
            self._journal.note(stream, "progressed", {"percent": percent})

    async def _gather(self, stream: Stream[Any]) -> list[Told]:
        """Of each source, within the time there is."""
        disk = self._host.disk()
        if disk is not None and disk.free_bytes < ROOM_BYTES:
            why = f"the disk has only {disk.free_bytes} bytes left"
            return [Told(source, why=why) for source in Source]
        found = {Source.AGENT: self._own(stream.name)}

        async def ask(source: Source, unit: str | None) -> None:
            found[source] = await self._of_the_host(source, unit)

        with anyio.move_on_after(GATHERED_WITHIN_S):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask, Source.SUPERVISOR, UNIT)
                tasks.start_soon(ask, Source.HOST, None)
        late = f"there was no answer within {GATHERED_WITHIN_S:g} s"
        return [found.get(source, Told(source, why=late)) for source in Source]

    def _own(self, stream: str) -> Told:
        """Our own lines since the attempt began, without those about another one."""
        began = self._journal.facts(lane=Lane.CORE, stream=stream, limit=1)
        here = bool(began) and began[0].boot_id == self._world.boot_id()
        lines = [
            line
            for line in self._recent.since(began[0].mono_ms / 1000 if here else 0.0)
            if set(NAMES_AN_ATTEMPT.findall(line.text)) <= {stream}
        ]
        if not lines:
            return Told(Source.AGENT, why="this run of the agent has said nothing about it")
        return Told(Source.AGENT, [line.text for line in lines], since_ms=lines[0].at_ms)

    async def _of_the_host(self, source: Source, unit: str | None) -> Told:
        if self._supervisor is None:
            return Told(source, why="there is no Supervisor to ask")
        try:
            tail = await self._supervisor.host_journal(count=MAX_LINES, unit=unit)
        except NeighbourProblem as problem:
            return Told(source, why=str(problem))
        lines = [line for line in tail.lines if line.strip() and not JOURNALCTLS_OWN.match(line)]
        why = f"not all was read: {tail.cut}" if tail.cut else ""
        return Told(source, lines, tail.dropped, why or ("" if lines else "the journal has none"))

    def _before_now(self, stream: Stream[Any]) -> tuple[bool, Counter[str]]:
        """Whether this outcome has lines already, and how many bytes of each source the attempt has."""
        spent: Counter[str] = Counter()
        again, entered = False, stream.last.n if stream.last else 0
        for fact in self._journal.facts(lane=Lane.LOG, stream=stream.name):
            if fact.kind == KIND:
                spent[fact.values["source"]] += len(fact.data)
                again = again or fact.n > entered
        return again, spent


def note(told: Told, *, within: int, redact: Callable[[str], str]) -> dict[str, object]:
    """The data of a note: the newest lines that fit into so many bytes, each bounded and without secrets."""
    kept, omitted = (
        newest(
            (fit(line, redact) for line in reversed(told.lines)), within=within - OVERHEAD_BYTES
        ),
        len(told.lines),
    )
    data: dict[str, object] = {"source": told.source.value, "lines": kept}
    data["omitted"] = told.omitted + omitted - len(kept)
    if told.since_ms is not None:
        data["since_ms"] = told.since_ms
    if told.why:
        data["why"] = fit(told.why, redact)[:MAX_WHY]
    return data


def newest(newest_first: Iterable[str], *, within: int) -> list[str]:
    """As many as fit, oldest first."""
    kept: list[str] = []
    for line in newest_first:
        within -= len(json.dumps(line)) + 1
        if within < 0 or len(kept) == MAX_LINES:
            break
        kept.append(line)
    return kept[::-1]


def fit(line: str, redact: Callable[[str], str]) -> str:
    """One line of printable text. Secrets go first: one that is cut in two is not recognised any more."""
    if len(line) > LOOKED_AT:
        line = line[:LOOKED_AT].rpartition(" ")[0] + " …"
    plain = one_line(ANSI.sub("", line).rstrip())
    said = SECRETS_OF_OTHERS.sub(lambda m: f"{m[1] or m[2] or ''}[secret]", redact(plain))
    return said if len(said) <= MAX_LINE else said[: MAX_LINE - 1] + "…"
