"""Which nodes: a selector in text, parsed, matched against one node at a time, and written back.

    label.site=lab|office, version<1.4.0, state!=quarantined, !label.canary

Rules:
- A comma is "and"; `|` between values is "or". No text at all selects every node.
- Keys: `fleet`, `node`, `device-type`, `version`, `agent-version`, `state`, and `label.<key>`.
- A label's key and value are those that a node can have (`cloudly.labels`). A value with a space, a comma or another
  character that means something here, or an empty one, stands in double quotes; there a backslash takes the next quote
  or backslash as it is.
- `=` is equal as text to one of the values; `!=` is equal to none of them, so it is true where there is no such label.
- `<`, `<=`, `>`, `>=` are for the two versions and take one value (their order: `versions`); a version without an
  order is in no range.
- `label.site` alone: the label is there, whatever its value. `!label.site`: it is not.
- `str` of a selector is its one spelling; parsing that gives the same selector.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache

from cloudly import labels
from cloudly.problems import BadOrder
from cloudly.rollouts.versions import order

MOST = 2000
"""Characters of a selector."""
MOST_VALUES = 100
LABEL = "label."
VERSIONS = ("version", "agent-version")
KEYS = ("fleet", "node", "device-type", *VERSIONS, "state")


class NodeState(StrEnum):
    """What a selector can ask of a node's state. The first that is true, from the last one up."""

    IDLE = "idle"
    UPDATING = "updating"
    FAILED = "failed"
    """Its last update failed, or was rolled back."""
    DARK = "dark"
    """Not heard of for too long."""
    QUARANTINED = "quarantined"


@dataclass(frozen=True, slots=True)
class NodeView:
    """What a selector, a plan and an admission know of a node."""

    node_id: str
    fleet: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    device_type: str = ""
    version: str = ""
    """Of the release that runs; empty: unknown, or none."""
    agent_version: str = ""
    state: str = NodeState.IDLE


class BadSelector(BadOrder):
    """A selector cannot be read; the message names the place. `column` counts from 1."""

    def __init__(self, text: str, column: int, seen: str, todo: str) -> None:
        super().__init__(f"selector {text!r}, column {column}: {seen}; {todo}")
        self.column = column
        self.todo = todo
        """What to write there, without anything of the text."""


@dataclass(frozen=True, slots=True)
class Term:
    """One condition. `op` is `=`, `!=`, `<`, `<=`, `>`, `>=`, or `has` / `lacks` for a label (then without values)."""

    key: str
    op: str
    values: tuple[str, ...] = ()

    def matches(self, node: NodeView) -> bool:
        match self.op:
            case "has":
                return self._seen(node) is not None
            case "lacks":
                return self._seen(node) is None
            case "=":
                return self._seen(node) in self.values
            case "!=":
                return self._seen(node) not in self.values
        return self._in_range(node)

    def __str__(self) -> str:
        if self.op in {"has", "lacks"}:
            return self.key if self.op == "has" else f"!{self.key}"
        return f"{self.key}{self.op}{'|'.join(_spelled(value) for value in self.values)}"

    def _seen(self, node: NodeView) -> str | None:
        if self.key.startswith(LABEL):
            return node.labels.get(self.key[len(LABEL) :])
        if self.key == "node":
            return node.node_id
        seen: str = getattr(node, self.key.replace("-", "_"))
        return str(seen)

    def _in_range(self, node: NodeView) -> bool:
        seen, bound = order(self._seen(node) or ""), order(self.values[0])
        if seen is None or bound is None:
            return False
        if seen == bound:
            return self.op in {"<=", ">="}
        return (seen < bound) == self.op.startswith("<")


@dataclass(frozen=True, slots=True)
class Selector:
    """All of its terms must be true; without terms it is every node."""

    terms: tuple[Term, ...] = ()

    def matches(self, node: NodeView) -> bool:
        return all(term.matches(node) for term in self.terms)

    def __str__(self) -> str:
        return ",".join(str(term) for term in self.terms)


_KEY = re.compile(r"[A-Za-z0-9._/-]+")
_OP = re.compile(r"!=|<=|>=|=|<|>")
_BARE = r'[^\s,|=<>!"]+'
_QUOTED = r'"(?:[^"\\]|\\["\\])*"'
_VALUE = re.compile(f"{_QUOTED}|{_BARE}")
_PART = re.compile(f"(?:{_QUOTED}|[^,])*")


@lru_cache(maxsize=1024)
def parse(text: str) -> Selector:
    """Raises BadSelector, which names the column."""
    if len(text) > MOST:
        raise BadSelector(text[:40], MOST + 1, "it is too long", f"at most {MOST} characters")
    if not text.strip():
        return Selector()
    return Selector(tuple(_term(text, start, part) for start, part in _parts(text)))


def _parts(text: str) -> Iterator[tuple[int, str]]:
    """The text between the commas, without space around it, and where it begins."""
    begin = 0
    while begin <= len(text):
        found = _PART.match(text, begin)
        part = found[0] if found else ""
        stripped = part.strip()
        yield begin + part.find(stripped), stripped
        begin += len(part) + 1


def _term(text: str, start: int, part: str) -> Term:
    lacks = part.startswith("!")
    at = start + len(part) - len(part[lacks:].lstrip())
    found = _KEY.match(text, at)
    if found is None:
        raise BadSelector(text, at + 1, "a condition is missing", "write one like label.site=lab")
    key, end = found[0], start + len(part)
    _must_be_key(text, at, key)
    at = _skip(text, found.end(), end)
    if at == end:
        if not key.startswith(LABEL):
            raise BadSelector(text, at + 1, f"{key} is compared with nothing", f"write {key}=…")
        return Term(key, "lacks" if lacks else "has")
    op = _OP.match(text, at)
    if op is None or lacks:
        wanted = "write !label.key alone" if lacks else "write =, !=, <, <=, > or >="
        raise BadSelector(text, at + 1, f"{text[at:end]!r} cannot stand here", wanted)
    if op[0] not in {"=", "!="} and key not in VERSIONS:
        raise BadSelector(text, at + 1, f"{key} has no order", "only version and agent-version do")
    return Term(key, op[0], _values(text, op.end(), end, (key, op[0])))


def _must_be_key(text: str, at: int, key: str) -> None:
    if key in KEYS or (key.startswith(LABEL) and labels.is_key(key[len(LABEL) :])):
        return
    known = ", ".join((*KEYS, "label.KEY"))
    raise BadSelector(text, at + 1, f"{key!r} is nothing to select by", f"use one of {known}")


def _values(text: str, at: int, end: int, asked: tuple[str, str]) -> tuple[str, ...]:
    """`asked`: the key and the operator before them."""
    values: list[str] = []
    while True:
        at = _skip(text, at, end)
        found = _VALUE.match(text, at, end)
        if found is None:
            todo = 'write one; one with a space or , | = < > ! " stands in double quotes'
            raise BadSelector(text, at + 1, "a value is missing", todo)
        values.append(_meant(found[0]))
        _must_fit(text, at, values, asked)
        at = _skip(text, found.end(), end)
        if at == end:
            return tuple(dict.fromkeys(values))
        if text[at] != "|":
            seen = f"{text[at:end]!r} cannot stand after a value"
            raise BadSelector(text, at + 1, seen, "values have | between them, conditions a comma")
        at += 1


def _meant(written: str) -> str:
    if not written.startswith('"'):
        return written
    return re.sub(r'\\(["\\])', r"\1", written[1:-1])


def _spelled(value: str) -> str:
    if re.fullmatch(_BARE, value):
        return value
    return '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'


def _must_fit(text: str, at: int, values: list[str], asked: tuple[str, str]) -> None:
    key, op = asked
    if len(values) > MOST_VALUES:
        raise BadSelector(text, at + 1, "too many values", f"at most {MOST_VALUES}")
    if key.startswith(LABEL) and not labels.is_value(values[-1]):
        todo = f"at most {labels.MOST_CHARACTERS} printable characters"
        raise BadSelector(text, at + 1, "no label has such a value", todo)
    if op in {"=", "!="}:
        return
    if len(values) > 1:
        raise BadSelector(text, at + 1, f"{op} takes one version", "write another condition")
    if order(values[0]) is None:
        seen = f"{values[0]!r} has no order"
        raise BadSelector(text, at + 1, seen, "write numbers with dots, like 1.4.0")


def _skip(text: str, at: int, end: int) -> int:
    while at < end and text[at].isspace():
        at += 1
    return at
