"""Who watches a device from outside: which facts it took for durable, and what it did to the world, and on what ground.

Rules
- A fact is acknowledged when the journal takes it for durable (and may ship it): it must be there at the end, at every
  opening until then, and in what a power cut at that instant would leave.
- An effect needs an intent: a fact that was acknowledged, and that others read in the file at that instant.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from journal.facts import Fact, Lane
from journal.journal import Journal
from journal.problems import JournalProblem
from journal.reader import open_reader
from journal.reading import Reading

INTENT = {
    "register": ("enrollment", {"asking"}),
    "download": ("app-update", {"downloading"}),
    "apply": ("app-update", {"applying", "rolling-back"}),
}
"""What is done to the world, and in which state of which machine it may be done."""


@dataclass
class Witness:
    """`home`: where the journal is. `image`: what a power cut would leave of it, at any time."""

    home: Path
    image: Path
    acknowledged: dict[bytes, Fact] = field(default_factory=dict)
    """By hash, in order: what was called durable."""
    soon: list[Fact] = field(default_factory=list)
    """What was written since, and will be durable with the next durable fact."""
    opened: int = 0
    effects: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def attend(self) -> Callable[[], None]:
        """Be told of every fact from now on; returns what ends that."""
        took, all_durable, start = Journal._took, Journal._all_durable, Journal.__init__

        def watched(journal: Journal, fact: Fact, *, soon: bool) -> None:
            self.soon.append(fact)
            took(journal, fact, soon=soon)

        def settled(journal: Journal) -> None:
            all_durable(journal)
            self._settled(self.soon[-1].kind if self.soon else "nothing new")

        def found(journal: Journal, *args: Any, **options: Any) -> None:
            start(journal, *args, **options)
            self._opened(journal)

        def leave() -> None:
            Journal._took, Journal._all_durable = took, all_durable  # type: ignore[method-assign]
            Journal.__init__ = start  # type: ignore[method-assign]

        Journal._took = watched  # type: ignore[method-assign, assignment]
        Journal._all_durable = settled  # type: ignore[method-assign, assignment]
        Journal.__init__ = found  # type: ignore[method-assign, assignment]
        return leave

    def state(self, machine: str) -> str:
        """Of its newest stream, as far as it is durable; empty when there is none."""
        for fact in reversed(self.acknowledged.values()):
            if fact.stream.startswith(f"{machine}/") and not fact.is_note:
                return fact.dst
        return ""

    def lost(self) -> list[str]:
        """What was acknowledged as durable and is not in the journal."""
        with open_reader(self.home) as reader:
            return _missing(self.acknowledged.values(), reader)

    def saw(self, effect: str) -> None:
        """Something is about to be done to the world."""
        self.effects.append(effect)
        if effect not in INTENT:
            self.wrong.append(f"{effect}: nothing in this story leads there")
            return
        machine, states = INTENT[effect]
        believed = self.state(machine)
        if believed not in states:
            self.wrong.append(f"{effect} while {machine} was durably {believed or 'unheard of'}")
        elif (there := self._state_in_the_file(machine)) not in states:
            self.wrong.append(f"{effect} while {machine} was {there} in the file")

    def _opened(self, journal: Journal) -> None:
        """A commit whose outcome was unknown is known now; opening calls what it finds durable."""
        self.opened += 1
        if lost := _missing([*self.acknowledged.values(), *self.soon], journal):
            self.wrong.append(f"opened without {len(lost)} facts: {', '.join(lost[:5])}")
        self.soon = [fact for fact in journal.facts() if fact.hash not in self.acknowledged]
        self._settled("what was found")

    def _settled(self, what: str) -> None:
        self.acknowledged |= {fact.hash: fact for fact in self.soon}
        self.soon.clear()
        lost = self._lost_with_the_power()
        if self.state("enrollment") == "enrolled" and not self._identity_stays():
            lost += " state.json"
        if lost:
            self.wrong.append(f"{what} was called durable, and a power cut would take {lost}")

    def _identity_stays(self) -> bool:
        now, then = self.home / "state.json", self.image / "state.json"
        return then.exists() and then.read_bytes() == now.read_bytes()

    def _lost_with_the_power(self) -> str:
        """Of what was acknowledged. Looked at in a copy: reading a log that was left changes it."""
        with tempfile.TemporaryDirectory(dir=self.image.parent) as copy:
            for name in ("journal.db", "journal.db-wal"):
                if (self.image / name).exists():
                    shutil.copy(self.image / name, copy)
            try:
                with open_reader(Path(copy)) as reader:
                    return ", ".join(_missing(self.acknowledged.values(), reader)[:3])
            except JournalProblem as problem:
                return f"all ({problem})" if self.acknowledged else ""

    def _state_in_the_file(self, machine: str) -> str:
        try:
            with open_reader(self.home) as reader:
                infos = reader.streams(machine)
        except JournalProblem as problem:
            return f"unreadable ({problem})"
        return infos[-1].state if infos else "unheard of"


def _missing(facts: Iterable[Fact], reading: Reading) -> list[str]:
    """Those of them that are not there, and were not trimmed either."""
    there = {fact.hash for fact in reading.facts()}
    trimmed = {lane: reading.base(lane).seq for lane in Lane}
    return [
        f"{fact.lane} {fact.seq} {fact.kind}"
        for fact in facts
        if fact.hash not in there and fact.seq > trimmed[fact.lane]
    ]


class Watched(httpx.AsyncBaseTransport):
    """A line on which each effect is seen before it happens."""

    def __init__(self, inner: httpx.AsyncBaseTransport, witness: Witness) -> None:
        self._inner = inner
        self._witness = witness

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if effect := effect_of(request):
            self._witness.saw(effect)
        return await self._inner.handle_async_request(request)


def effect_of(request: httpx.Request) -> str:
    """What it does to the world; empty: it only asks, or reports."""
    match request.method, request.url.path:
        case "POST", "/baseos/v1/nodes/register":
            return "register"
        case "POST", "/v1/update":
            return "apply" if json.loads(request.content or b"{}").get("cancel") else "download"
        case "POST", path if not path.startswith("/baseos/"):
            return path
        case _:
            return ""
