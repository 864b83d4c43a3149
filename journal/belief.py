"""What a stream believed, as text and back: it stands in for the facts that were trimmed.

A belief is a frozen dataclass, or plain values; in it are plain values, enums, dataclasses, tuples, lists, sets and
mappings by text. The types come from the annotations. A field that is missing takes its default: an older program wrote
it. A field that is unknown is an error: a newer one did.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode


def to_text(belief: object) -> str:
    """Raises TypeError or ValueError for what cannot be kept as text."""
    return _encode(_plain(belief))


def from_text(text: str, kind: Any) -> Any:
    """The belief of type `kind`; raises TypeError, ValueError or KeyError when it is not one."""
    return _made(json.loads(text), kind)


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    match value:
        case Enum():
            return value.value
        case tuple() | list():
            return [_plain(each) for each in value]
        case AbstractSet():
            return sorted((_plain(each) for each in value), key=_encode)
        case Mapping():
            return {name: _plain(each) for name, each in value.items()}
    return value


def _made(value: Any, kind: Any) -> Any:  # noqa: PLR0911 - one line per kind of type
    origin, within = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin in {Union, UnionType}:
        return _one_of(value, within)
    if is_dataclass(kind):
        return _dataclass(value, kind)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(value)
    if origin is tuple and within and within[-1] is not Ellipsis:
        return tuple(_made(each, of) for each, of in zip(value, within, strict=True))
    if origin in {tuple, list, set, frozenset}:
        return origin(_made(each, within[0]) for each in _must_be(value, list))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {name: _made(each, within[1]) for name, each in _must_be(value, dict).items()}
    if kind is float and type(value) is int:
        return float(value)
    return _must_be(value, kind)


def _one_of(value: Any, kinds: tuple[Any, ...]) -> Any:
    if value is None and NoneType in kinds:
        return None
    last: Exception = TypeError("nothing fits")
    for kind in kinds:
        try:
            return _made(value, kind)
        except (TypeError, ValueError, KeyError) as error:
            last = error
    raise last


def _dataclass(value: Any, kind: Any) -> Any:
    types = _types(kind)
    return kind(**{name: _made(each, types[name]) for name, each in _must_be(value, dict).items()})


@cache
def _types(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def _must_be(value: Any, kind: Any) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{type(value).__name__} is not {kind}")
    return value
