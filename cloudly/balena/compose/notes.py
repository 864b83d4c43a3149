"""What a reader of compose files has to say: each with its line, its place and its reason; all of them, not the first.

Rules:
- No value of an environment or a label is ever quoted: it may be a secret.
- What is quoted is short and printable: a file may hold terminal escapes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from cloudly.problems import BadOrder

LONGEST_QUOTE = 80
MAX_TOLD = 200
"""Problems of one file that are listed; a file with more of them is another kind of file."""


@dataclass(frozen=True, slots=True, order=True)
class Note:
    """One problem or warning. `line` counts from 1; `where` is the path of keys, empty for the file."""

    line: int
    where: str
    reason: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.where + ': ' if self.where else ''}{self.reason}"


class BadCompose(BadOrder):
    """No release can be made from this compose file; `problems` are all its reasons, by line."""

    def __init__(self, problems: Iterable[Note], warnings: Iterable[Note] = ()) -> None:
        self.problems = tuple(sorted(set(problems)))
        self.warnings = tuple(sorted(set(warnings)))
        super().__init__(
            "no release can be made from this compose file\n"
            + "\n".join(f"  {problem}" for problem in self.problems)
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return (BadCompose, (self.problems, self.warnings))


class Placed(Protocol):
    """What has a place in the file."""

    @property
    def line(self) -> int: ...

    @property
    def path(self) -> str: ...


@dataclass
class Notes:
    """Collects."""

    problems: list[Note] = field(default_factory=list)
    warnings: list[Note] = field(default_factory=list)

    def refuse(self, at: Placed, reason: str) -> None:
        if len(self.problems) < MAX_TOLD:
            self.problems.append(Note(at.line, printable(at.path), reason))
        elif len(self.problems) == MAX_TOLD:
            self.problems.append(Note(at.line, "", f"and more from here: {MAX_TOLD} are told"))

    def warn(self, at: Placed, reason: str) -> None:
        if len(self.warnings) < MAX_TOLD:
            self.warnings.append(Note(at.line, printable(at.path), reason))


def quoted(text: str) -> str:
    """A value of the file in a sentence."""
    short = text if len(text) <= LONGEST_QUOTE else text[: LONGEST_QUOTE - 1] + "…"
    return f'"{printable(short)}"'


def printable(text: str) -> str:
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text)
