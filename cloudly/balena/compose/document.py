"""The YAML of a compose file as a bounded tree of nodes, each of which knows its line and its path.

Rules:
- One document, at most 256 KiB, 24 levels and 20,000 nodes, counted after aliases and merges are written out: what
  grows beyond that is refused before it is built.
- No key twice in one mapping; `<<` merges, and what stands beside it wins.
- Scalars are YAML 1.2's (core schema): `no`, `on` and `12:30` are text; a tag other than `!!str` is refused.
- Nothing is ever constructed but these nodes.

Source: YAML 1.2.2 §10.3.2 (core schema); the merge key is YAML 1.1's, and what compose files use.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from cloudly.balena.compose.notes import BadCompose, Note, Notes, printable, quoted

MAX_BYTES: Final = 256 * 1024
MAX_DEPTH: Final = 24
MAX_NODES: Final = 20_000
MERGE: Final = "<<"
TEXT_TAGS: Final = ("tag:yaml.org,2002:str", "!")
UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")


class Kind(StrEnum):
    NULL = "nothing"
    BOOLEAN = "a boolean"
    INTEGER = "a whole number"
    FLOAT = "a number"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class Scalar:
    line: int
    path: str
    kind: Kind
    written: str
    """The characters as they stand in the file, without quotes."""


@dataclass(frozen=True, slots=True)
class Sequence:
    line: int
    path: str
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Mapping:
    line: int
    path: str
    items: dict[str, Node]


Node = Scalar | Sequence | Mapping


def read_document(document: bytes, notes: Notes) -> Mapping:
    """The one mapping that the file is.

    Raises:
        BadCompose: it cannot be read to its end; what was noted before is in it.

    """
    try:
        return _Tree(notes).mapping_of(_raw(_text(document)))
    except _Unreadable as problem:
        raise BadCompose([*notes.problems, problem.note]) from None


def text_of(document: bytes) -> str:
    """The file's text, without a byte order mark. Raises UnicodeDecodeError."""
    return document.decode("utf-8-sig")


class _Unreadable(Exception):
    def __init__(self, line: int, reason: str, path: str = "") -> None:
        super().__init__(reason)
        self.note = Note(line, printable(path), reason)


@dataclass(frozen=True, slots=True)
class _Raw:
    """What an event began: a scalar, or a collection whose parts are appended as they come."""

    line: int
    what: str
    value: str = ""
    plain: bool = False
    tag: str | None = None
    parts: list[_Raw] = field(default_factory=list)


def _text(document: bytes) -> str:
    if len(document) > MAX_BYTES:
        raise _Unreadable(1, f"the file is larger than {MAX_BYTES // 1024} KiB")
    try:
        return text_of(document)
    except UnicodeDecodeError as problem:
        line = document.count(b"\n", 0, problem.start) + 1
        raise _Unreadable(line, "this is not UTF-8 text") from None


def _raw(text: str) -> _Raw:
    """The first document as it stands, aliases pointing at what they name. Raises _Unreadable."""
    try:
        return _built(YAML(typ="safe", pure=True).parse(text))
    except MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        reason = printable(problem.problem or problem.context or "it cannot be parsed")
        raise _Unreadable(mark.line + 1 if mark else 1, f"this is not YAML: {reason}") from None
    except YAMLError:
        line = next((n for n, one in enumerate(text.split("\n"), 1) if not _is_clean(one)), 1)
        raise _Unreadable(line, "a character here may not stand in YAML") from None
    except (ValueError, OverflowError):
        raise _Unreadable(1, "this is not YAML: an escape or a directive is malformed") from None


def _is_clean(line: str) -> bool:
    return all(one in "\t\r" or one.isprintable() for one in line)


def _built(events: Iterator[Any]) -> _Raw:
    anchors: dict[str, _Raw] = {}
    top = _Raw(1, "sequence")
    inside, documents = [top], 0
    for count, event in enumerate(events):
        name, line = type(event).__name__, event.start_mark.line + 1
        if count > 2 * MAX_NODES:  # a collection has two events
            raise _Unreadable(line, f"the file has more than {MAX_NODES} nodes")
        if name == "DocumentStartEvent":
            documents += 1
            if documents > 1:
                raise _Unreadable(line, "a second document begins here; a compose file is one")
        elif name in {"SequenceEndEvent", "MappingEndEvent"}:
            inside.pop()
        elif name in {"AliasEvent", "ScalarEvent", "SequenceStartEvent", "MappingStartEvent"}:
            raw = _begun(event, line, anchors)
            inside[-1].parts.append(raw)
            if name in {"SequenceStartEvent", "MappingStartEvent"}:
                inside.append(raw)
            if len(inside) > MAX_DEPTH + 1:
                raise _Unreadable(line, f"this is nested deeper than {MAX_DEPTH} levels")
    return top.parts[0] if top.parts else _Raw(1, "scalar", plain=True)


def _begun(event: Any, line: int, anchors: dict[str, _Raw]) -> _Raw:
    what = type(event).__name__.removesuffix("Event").removesuffix("Start").lower()
    if what == "alias":
        if event.anchor not in anchors:
            raise _Unreadable(line, f"nothing is called &{printable(event.anchor)} before here")
        return anchors[event.anchor]
    if what == "scalar":
        raw = _Raw(line, what, _joined(event.value), plain=event.implicit[0], tag=event.tag)
    else:
        raw = _Raw(line, what, tag=event.tag)
    if event.anchor is not None:
        anchors[event.anchor] = raw
    return raw


def _joined(value: str) -> str:
    """JSON writes a character beyond U+FFFF as two escapes; the parser leaves its halves."""
    if UNSTORABLE.search(value) is None:
        return value
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


@dataclass
class _Tree:
    """Writes out aliases and merges, and counts while it does."""

    notes: Notes
    nodes: int = 0

    def mapping_of(self, raw: _Raw) -> Mapping:
        if raw.what != "mapping":
            raise _Unreadable(raw.line, "a compose file is a mapping with the key `services`")
        return self._mapping(raw, raw.line, "", 1)

    def _node(self, raw: _Raw, line: int, path: str, depth: int) -> Node:
        self._count(raw.line, path, depth)
        if raw.what == "scalar":
            return self._scalar(raw, line, path)
        self._check_tag(raw, line, path)
        if raw.what == "mapping":
            return self._mapping(raw, line, path, depth)
        items = tuple(
            self._node(item, item.line, f"{path}[{index}]", depth + 1)
            for index, item in enumerate(raw.parts)
        )
        return Sequence(line, path, items)

    def _count(self, line: int, path: str, depth: int) -> None:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise _Unreadable(
                line, f"with its aliases written out the file has more than {MAX_NODES} nodes", path
            )
        if depth > MAX_DEPTH:
            raise _Unreadable(
                line, f"this is nested deeper than {MAX_DEPTH} levels, or an alias of itself", path
            )

    def _scalar(self, raw: _Raw, line: int, path: str) -> Scalar:
        self._check_tag(raw, line, path)
        kind = _kind(raw.value) if raw.plain else Kind.TEXT
        scalar = Scalar(line, path, kind, raw.value)
        if UNSTORABLE.search(raw.value):
            self.notes.refuse(scalar, "a character in this value cannot be kept: NUL or half a one")
        return scalar

    def _check_tag(self, raw: _Raw, line: int, path: str) -> None:
        if raw.tag is not None and not (raw.what == "scalar" and raw.tag in TEXT_TAGS):
            tag = quoted(raw.tag)
            self.notes.refuse(
                Scalar(line, path, Kind.TEXT, ""), f"the tag {tag} means nothing here"
            )

    def _mapping(self, raw: _Raw, line: int, path: str, depth: int) -> Mapping:
        entries = self._entries(raw, path, depth)
        items = {
            name: self._node(value, key.line, f"{path}.{name}" if path else name, depth + 1)
            for name, (key, value) in entries.items()
        }
        return Mapping(line, path, items)

    def _entries(self, raw: _Raw, path: str, depth: int) -> dict[str, tuple[_Raw, _Raw]]:
        """Each key once: what stands there itself, then what is merged in."""
        own: dict[str, tuple[_Raw, _Raw]] = {}
        merged: list[_Raw] = []
        for key, value in zip(raw.parts[::2], raw.parts[1::2], strict=True):
            self._count(key.line, path, depth)
            place = Scalar(key.line, path, Kind.TEXT, "")
            if key.what != "scalar":
                self.notes.refuse(place, "a key must be text")
            elif key.plain and key.value == MERGE:
                merged += self._merged(value, path)
            elif UNSTORABLE.search(key.value):
                self.notes.refuse(place, "a character in this key cannot be kept")
            elif key.value in own:
                first = own[key.value][0].line
                self.notes.refuse(
                    place, f"the key {quoted(key.value)} stands here twice, first in line {first}"
                )
            else:
                own[key.value] = (key, value)
        for one in merged:
            for name, entry in self._entries(one, path, depth + 1).items():
                own.setdefault(name, entry)
        return own

    def _merged(self, value: _Raw, path: str) -> list[_Raw]:
        if value.what == "mapping":
            return [value]
        if value.what == "sequence" and all(one.what == "mapping" for one in value.parts):
            return value.parts
        place = Scalar(value.line, path, Kind.TEXT, "")
        self.notes.refuse(place, "`<<` merges a mapping, or a list of mappings")
        return []


# fmt: off
CORE: Final = (
    (Kind.NULL,    re.compile(r"~|null|Null|NULL|")),
    (Kind.BOOLEAN, re.compile(r"true|True|TRUE|false|False|FALSE")),
    (Kind.INTEGER, re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")),
    (Kind.FLOAT,   re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
                              r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")),
)
# fmt: on


def _kind(plain: str) -> Kind:
    return next((kind for kind, form in CORE if form.fullmatch(plain)), Kind.TEXT)
