"""The file `webhooks.json` in the data directory: what is needed in full of each webhook, and is in no database.

Rules:
- Mode 0600, replaced as a whole; the server reads it anew at each look.
- Where several servers share a PostgreSQL, each needs the file: whichever leads delivers.
- A secret that was replaced signs beside the new one until its time is over, so that receivers can change over.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from cloudly.durable import write_durably
from cloudly.problems import BadOrder, CloudlyProblem
from cloudly.webhooks.signing import key_of
from interfaces.why import when

FILE = "webhooks.json"
MOST_FORMER = 3
"""Each costs a signature per request, and a receiver that many comparisons."""
LONGEST_OVERLAP_S = 30 * 86_400


class SecretsUnreadable(CloudlyProblem):
    """The file is there and cannot be understood, or lacks a webhook."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept of one webhook."""

    secret: str = field(repr=False)
    allow_private: bool = False
    former: tuple[Former, ...] = ()

    def secrets_at(self, now_ms: int) -> tuple[str, ...]:
        """Those that sign then, the present one first."""
        return (self.secret, *(one.secret for one in self.former if now_ms < one.until_ms))


@dataclass(frozen=True, slots=True)
class Former:
    """A secret that was replaced."""

    secret: str = field(repr=False)
    until_ms: int
    """From then on it signs no more."""


def rotated(kept: Kept, secret: str, *, overlap_ms: int, now_ms: int) -> Kept:
    """With that secret from now on; the one before signs for so long beside it. 0: nothing of before signs any more.

    The same once more changes nothing. Raises BadOrder when too many would sign.
    """
    if kept.secret == secret:
        return kept
    if not overlap_ms:
        return replace(kept, secret=secret, former=())
    still = tuple(one for one in kept.former if now_ms < one.until_ms)
    if len(still) >= MOST_FORMER:
        raise BadOrder(
            f"{len(still) + 1} secrets sign already, because it was rotated so often: wait until"
            f" {when(min(one.until_ms for one in still))}, or end all of them at once"
        )
    former = (*still, Former(kept.secret, now_ms + overlap_ms))
    return replace(kept, secret=secret, former=former)


def read(directory: Path) -> dict[str, Kept]:
    """By name. Raises SecretsUnreadable, which holds nothing of it."""
    file = directory / FILE
    try:
        known = json.loads(file.read_text(encoding="ascii"))
        found = {
            str(name): Kept(str(one["secret"]), bool(one["allow_private"]), _former(one))
            for name, one in known.items()
        }
        for one in found.values():
            for secret in (one.secret, *(former.secret for former in one.former)):
                key_of(secret)
    except FileNotFoundError:
        return {}
    except OSError as problem:
        raise SecretsUnreadable(f"{file} cannot be read: {problem.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise SecretsUnreadable(
            f"{file} cannot be understood: restore it, or delete and make the webhooks again"
        ) from None
    return found


def _former(one: Mapping[str, Any]) -> tuple[Former, ...]:
    return tuple(Former(str(it["secret"]), int(it["until_ms"])) for it in one.get("former", ()))


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


def take_back(directory: Path, name: str, secret: str, before: Kept) -> None:
    """That secret was not to be: what was there before is there again, unless it is another one by now."""
    with _alone(directory):
        known = _read(directory)
        if name in known and known[name].secret == secret:
            _write(directory, known | {name: before})


def _read(directory: Path) -> dict[str, Kept]:
    try:
        return read(directory)
    except SecretsUnreadable as problem:
        raise BadOrder(str(problem)) from None


def _write(directory: Path, known: dict[str, Kept]) -> None:
    content = {name: _document(one) for name, one in sorted(known.items())}
    write_durably(directory / FILE, json.dumps(content, indent=2).encode() + b"\n")


def _document(kept: Kept) -> dict[str, Any]:
    document: dict[str, Any] = {"secret": kept.secret, "allow_private": kept.allow_private}
    if kept.former:
        document["former"] = [asdict(one) for one in kept.former]
    return document


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Two commands at once do not write over each other."""
    lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
