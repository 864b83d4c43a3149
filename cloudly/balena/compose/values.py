"""Single values of a compose file, in the form the Supervisor takes; None: the value was refused, with a note.

Rules:
- `$` stands for itself only when it is doubled: nobody here, and no Supervisor, puts variables in.
- Text may be written as a number, and keeps its characters: `1.10` stays `1.10`, `0755` stays `0755`.
- A boolean is never text and text never a boolean, but in environment and labels, where `True` becomes `true`.
- A form that the Supervisor would take for something else, or for nothing, is refused.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from cloudly.balena.compose.document import Kind, Mapping, Node, Scalar, Sequence
from cloudly.balena.compose.notes import Notes, Placed, quoted

EXACT: Final = 2**53
"""The largest whole number that JavaScript, which reads it, has."""
WHOLE: Final = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
DECIMAL: Final = re.compile(r"[0-9]{1,6}(?:\.[0-9]{1,9})?")
MEMORY: Final = re.compile(r"([0-9]{1,15})([bkmg]?)b?", re.IGNORECASE)
SCALE: Final = {"": 0, "b": 0, "k": 1, "m": 2, "g": 3}
DURATION: Final = re.compile(r"(?:[0-9]{1,9}(?:\.[0-9]{1,9})?(?:us|ms|s|m|h))+")
DURATION_PART: Final = re.compile(r"([0-9.]+)(us|ms|s|m|h)")
MILLISECONDS: Final = {"us": 0.001, "ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}


@dataclass
class Scope:
    """What the file declares, and what its services have taken so far."""

    services: frozenset[str] = frozenset()
    volumes: frozenset[str] = frozenset()
    networks: frozenset[str] = frozenset()
    subnets: frozenset[str] = frozenset()
    """Networks with a subnet of their own, where addresses can be given."""
    ports: list[tuple[str, str, range, str]] = field(default_factory=list)
    """Published: host address, protocol, host ports, and where."""


@dataclass(frozen=True, slots=True)
class Reader:
    """Who reads one file: its notes, and what the file declares."""

    notes: Notes
    scope: Scope

    def refuse(self, at: Placed, reason: str) -> None:
        self.notes.refuse(at, reason)

    def warn(self, at: Placed, reason: str) -> None:
        self.notes.warn(at, reason)


Reading = Callable[[Node, Reader], Any]


def kind_of(node: Node) -> str:
    if isinstance(node, Mapping):
        return "a mapping"
    return "a list" if isinstance(node, Sequence) else node.kind.value


def plain(node: Scalar, reader: Reader) -> str | None:
    """The characters of a scalar, its doubled `$` single."""
    if "$" in node.written.replace("$$", ""):
        reader.refuse(
            node,
            "no variables are put in, here or on the device: write the value, and `$$` for a `$`",
        )
        return None
    return node.written.replace("$$", "$")


def value(node: Node, reader: Reader) -> str | None:
    """The value of a variable or of a label: text, a number as it is written, or a boolean."""
    if not isinstance(node, Scalar):
        reader.refuse(node, f"a value is text, and this is {kind_of(node)}")
        return None
    if node.kind is Kind.NULL:
        reader.refuse(node, 'this has no value: write one, or "" for an empty one')
        return None
    if node.kind is Kind.BOOLEAN:
        return node.written.lower()
    return plain(node, reader)


def text(node: Node, reader: Reader) -> str | None:
    """Text that is not empty."""
    if not isinstance(node, Scalar) or node.kind in {Kind.NULL, Kind.BOOLEAN}:
        quotes = ": put it in quotes" if isinstance(node, Scalar) and node.written else ""
        reader.refuse(node, f"this must be text, and is {kind_of(node)}{quotes}")
        return None
    found = plain(node, reader)
    if found == "":
        reader.refuse(node, "this is empty: leave the line out, or write a value")
        return None
    return found


def flag(node: Node, reader: Reader) -> bool | None:
    if isinstance(node, Scalar) and node.kind is Kind.BOOLEAN:
        return node.written.lower() == "true"
    shown = f" and not {quoted(node.written)}" if isinstance(node, Scalar) else ""
    reader.refuse(
        node, f"this must be true or false{shown}: the Supervisor takes any other text for true"
    )
    return None


def whole(least: int | None = None, most: int = EXACT) -> Reading:
    """A whole number, also in quotes."""

    def reading(node: Node, reader: Reader) -> int | None:
        written = node.written if isinstance(node, Scalar) else ""
        if WHOLE.fullmatch(written) is None or len(written) > len(str(EXACT)) + 1:
            shown = quoted(written) if isinstance(node, Scalar) else kind_of(node)
            reader.refuse(node, f"this must be a whole number, and is {shown}")
            return None
        number = int(written)
        low = -EXACT if least is None else least
        if not low <= number <= most:
            reader.refuse(node, f"this must be between {low} and {most}, and is {number}")
            return None
        return number

    return reading


def decimal(node: Node, reader: Reader) -> int | float | None:
    """A number above 0, also in quotes."""
    written = node.written if isinstance(node, Scalar) else ""
    if DECIMAL.fullmatch(written) is None or float(written) == 0:
        reader.refuse(node, "this must be a number above 0, such as 0.5")
        return None
    return float(written) if "." in written else int(written)


def memory(node: Node, reader: Reader) -> str | None:
    """A size as the Supervisor reads it; any other form would be no limit at all, silently."""
    written = node.written if isinstance(node, Scalar) else ""
    if not 0 < (bytes_of(written) or 0) <= EXACT:
        reader.refuse(
            node,
            "this must be a whole number of bytes above 0, with b, k, m or g behind it, such as 64m:"
            " the Supervisor takes any other form for no limit",
        )
        return None
    return written


def bytes_of(written: str) -> int | None:
    """None for what is no size."""
    found = MEMORY.fullmatch(written)
    return None if found is None else int(found[1]) * int(1024 ** SCALE[found[2].lower()])


def duration(least_ms: int, so_that: str) -> Reading:
    """A duration with units, at least so long; a bare number would be milliseconds there."""

    def reading(node: Node, reader: Reader) -> str | None:
        written = node.written if isinstance(node, Scalar) else ""
        if DURATION.fullmatch(written) is None:
            reader.refuse(
                node, "this must be a duration with units (us, ms, s, m, h), such as 1m30s"
            )
            return None
        found = sum(
            float(number) * MILLISECONDS[unit] for number, unit in DURATION_PART.findall(written)
        )
        if found < least_ms:
            reader.refuse(node, f"this must be at least {least_ms} ms: {so_that}")
            return None
        return str(written)

    return reading


def one_of(*choices: str, otherwise: str) -> Reading:
    def reading(node: Node, reader: Reader) -> str | None:
        found = text(node, reader)
        if found is None or found in choices:
            return found
        reader.refuse(
            node, f"this must be {' or '.join(choices)}, and is {quoted(found)}: {otherwise}"
        )
        return None

    return reading


def texts(node: Node, reader: Reader) -> list[str] | None:
    """A list of text."""
    if not isinstance(node, Sequence):
        reader.refuse(node, f"this must be a list, and is {kind_of(node)}")
        return None
    return [found for item in node.items if (found := text(item, reader)) is not None]


def text_or_texts(node: Node, reader: Reader) -> list[str] | None:
    """One or a list of them; always a list."""
    if isinstance(node, Scalar):
        found = text(node, reader)
        return None if found is None else [found]
    return texts(node, reader)


def command(node: Node, reader: Reader) -> list[str] | None:
    """Words, as a list: how the Supervisor splits a line of them is its own. None also for nothing: the image's own."""
    if isinstance(node, Scalar) and node.kind is Kind.NULL:
        return None
    if isinstance(node, Sequence):
        words = [value(item, reader) for item in node.items]
        return [word for word in words if word is not None]
    if not isinstance(node, Scalar):
        reader.refuse(node, f"this must be text or a list, and is {kind_of(node)}")
        return None
    line = plain(node, reader)
    if line is None:
        return None
    try:
        return shlex.split(line)
    except ValueError as problem:
        reader.refuse(node, f"this cannot be split into words: {str(problem).lower()}")
        return None


Pairs = dict[str, tuple[str, Node]]


def pairs(node: Node, reader: Reader, *, what: str) -> Pairs:
    """A mapping, or a list of `name=value`: each name with its value and its place. What is refused is left out."""
    if isinstance(node, Mapping):
        found = {name: (value(item, reader), item) for name, item in node.items.items()}
        return {name: (held, item) for name, (held, item) in found.items() if held is not None}
    if not isinstance(node, Sequence):
        reader.refuse(
            node, f"this must be a mapping or a list of name=value, and is {kind_of(node)}"
        )
        return {}
    listed: Pairs = {}
    for item in node.items:
        line = plain(item, reader) if isinstance(item, Scalar) else ""
        name, equals, held = (line or "").partition("=")
        if line is None:
            continue
        if not name or not equals:
            reader.refuse(
                item,
                f"{what} in a list is written name=value, and this has no {'name' if equals else '='}",
            )
        elif name in listed:
            reader.refuse(
                item,
                f"{what} {quoted(name)} stands here twice, first in line {listed[name][1].line}",
            )
        else:
            listed[name] = (held, item)
    return listed


def text_map(what: str) -> Reading:
    """A mapping of text to text."""

    def reading(node: Node, reader: Reader) -> dict[str, str]:
        return {name: held for name, (held, _) in pairs(node, reader, what=what).items()}

    return reading


def mapping(node: Node, reader: Reader, known: dict[str, Reading], *, of: str) -> dict[str, Any]:
    """The known keys of a mapping, each read; another key is refused, because the Supervisor would drop it."""
    if not isinstance(node, Mapping):
        reader.refuse(node, f"this must be a mapping, and is {kind_of(node)}")
        return {}
    read: dict[str, Any] = {}
    for name, item in node.items.items():
        if name not in known:
            reader.refuse(
                item, f"the Supervisor would drop this: {of} has {', '.join(sorted(known))}"
            )
            continue
        found = known[name](item, reader)
        if found is not None:
            read[name] = found
    return read
