"""The file `webhooks.json` in the data directory: what is needed in full of each webhook, and is in no database.

Rules:
- Mode 0600, replaced as a whole; the server reads it anew at each look.
- Where several servers share a PostgreSQL, each needs the file: whichever leads delivers.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cloudly.durable import write_durably
from cloudly.problems import BadOrder, CloudlyProblem
from cloudly.webhooks.signing import key_of

FILE = "webhooks.json"


class SecretsUnreadable(CloudlyProblem):
    """The file is there and cannot be understood, or lacks a webhook."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept of one webhook."""

    secret: str = field(repr=False)
    allow_private: bool = False


def read(directory: Path) -> dict[str, Kept]:
    """By name. Raises SecretsUnreadable, which holds nothing of it."""
    file = directory / FILE
    try:
        known = json.loads(file.read_text(encoding="ascii"))
        found = {
            str(name): Kept(str(one["secret"]), bool(one["allow_private"]))
            for name, one in known.items()
        }
        for one in found.values():
            key_of(one.secret)
    except FileNotFoundError:
        return {}
    except OSError as problem:
        raise SecretsUnreadable(f"{file} cannot be read: {problem.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise SecretsUnreadable(
            f"{file} cannot be understood: restore it, or delete and make the webhooks again"
        ) from None
    return found


def of(directory: Path, name: str) -> Kept:
    """Raises SecretsUnreadable."""
    found = read(directory).get(name)
    if found is None:
        raise SecretsUnreadable(
            f"{FILE} in this server's data directory has no secret of webhook {name}:"
            " copy it from the server on which the webhook was made"
        )
    return found


def add(directory: Path, name: str, kept: Kept) -> None:
    with _alone(directory):
        _write(directory, _read(directory) | {name: kept})


def remove(directory: Path, name: str, kept: Kept | None = None) -> None:
    """`kept`: only while it is this one; another webhook may have the name by now."""
    with _alone(directory):
        known = _read(directory)
        found = known.pop(name, None)
        if found is not None and kept in {None, found}:
            _write(directory, known)


def _read(directory: Path) -> dict[str, Kept]:
    try:
        return read(directory)
    except SecretsUnreadable as problem:
        raise BadOrder(str(problem)) from None


def _write(directory: Path, known: dict[str, Kept]) -> None:
    content = {
        name: {"secret": one.secret, "allow_private": one.allow_private}
        for name, one in sorted(known.items())
    }
    write_durably(directory / FILE, json.dumps(content, indent=2).encode() + b"\n")


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Two commands at once do not write over each other."""
    lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
