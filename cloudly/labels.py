"""Labels: an operator's words on a node, by which rollouts select it. Pure.

Rules:
- A key is 1 to 63 of a-z, 0-9, `.`, `_`, `-`, and begins with a letter or a digit; a value is at most 100 printable
  characters and may be empty; a node has at most 32.
- `key=value` sets, `key-` removes. What is after the first `=` is the value, as it is.
- These are the labels that a selector can ask for, and no others (`rollouts/selector.py`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

from cloudly.problems import BadOrder

KEY = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
MOST_CHARACTERS = 100
MOST = 32


class BadLabel(BadOrder):
    """A label that cannot be; nothing was changed."""


def is_key(text: str) -> bool:
    return KEY.fullmatch(text) is not None


def is_value(text: str) -> bool:
    return len(text) <= MOST_CHARACTERS and text.isprintable()


def changed(labels: Mapping[str, str], changes: Iterable[str]) -> dict[str, str]:
    """The labels after `key=value` and `key-`, one after the other. Raises BadLabel."""
    result = dict(labels)
    for change in changes:
        key, equals, value = change.partition("=")
        if equals:
            _must_be(key, value)
            result[key] = value
        elif key.endswith("-") and is_key(key[:-1]):
            result.pop(key[:-1], None)
        else:
            raise BadLabel(f"{change!r} is neither key=value nor key-")
    if len(result) > MOST:
        raise BadLabel(f"a node has at most {MOST} labels, and these would be {len(result)}")
    return result


def _must_be(key: str, value: str) -> None:
    if not is_key(key):
        raise BadLabel(
            f"{key!r} is no key of a label: 1 to 63 of a-z, 0-9, `.`, `_`, `-`,"
            " beginning with a letter or a digit"
        )
    if not is_value(value):
        raise BadLabel(
            f"the value of label {key!r} cannot be: at most {MOST_CHARACTERS} printable characters"
        )


def load(document: str) -> dict[str, str]:
    """From the database."""
    labels: dict[str, str] = json.loads(document)
    return labels


def dump(labels: Mapping[str, str]) -> str:
    """For the database: the same labels are the same text."""
    return json.dumps(dict(sorted(labels.items())), ensure_ascii=False)


def in_words(labels: Mapping[str, str]) -> str:
    """For a table."""
    return ", ".join(f"{key}={labels[key]}" for key in sorted(labels))
