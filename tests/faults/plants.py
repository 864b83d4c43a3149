"""Planted defects: a harness that stays green with one of them is worth nothing. Each is a context that ends."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

from baserunner.app_update.steps import AppUpdateSteps
from journal import opening
from journal.pen import Pen

Plant = Callable[[], AbstractContextManager[None]]


@contextlib.contextmanager
def effect_before_intent() -> Iterator[None]:
    """The Supervisor is told to apply, and only then it is written that this was wanted."""
    staged = AppUpdateSteps.staged

    async def rash(self: AppUpdateSteps, attempt: Any) -> Any:
        outcome = await staged(self, attempt)
        if getattr(outcome, "kind", "") == "apply-requested":
            self._lock.release()
            await self._tell(cancel=True)
        return outcome

    with _instead(AppUpdateSteps, "staged", rash):
        yield


@contextlib.contextmanager
def failed_commits_are_ignored() -> Iterator[None]:
    """A commit that failed is taken for one that did not: the agent goes on with what it believes."""

    def insert(self: Pen, statement: str, row: Any, *, kind: str, soon: bool) -> None:  # noqa: ARG001 - the real one's
        self._sync(soon=soon)
        with contextlib.suppress(sqlite3.Error):
            self._connection.execute(statement, row)

    with _instead(Pen, "insert", insert):
        yield


@contextlib.contextmanager
def nothing_is_synced() -> Iterator[None]:
    """synchronous=NORMAL for all facts: what is called durable is taken by a power cut."""

    def never(self: Pen, *, soon: bool) -> None:  # noqa: ARG001 - the real one's
        self._connection.execute("PRAGMA synchronous=NORMAL")

    with _instead(Pen, "_sync", never):
        yield


@contextlib.contextmanager
def what_was_found_is_not_written_again() -> Iterator[None]:
    """What is read in the WAL after a sync that failed is called durable, and no disk has it."""
    with _instead(opening, "_write_again", lambda *_: None):
        yield


@contextlib.contextmanager
def _instead(owner: object, name: str, other: Callable[..., Any]) -> Iterator[None]:
    real = getattr(owner, name)
    setattr(owner, name, other)
    try:
        yield
    finally:
        setattr(owner, name, real)


PLANTS: Mapping[str, Plant] = {
    "": contextlib.nullcontext,
    "effect-before-intent": effect_before_intent,
    "failed-commits-are-ignored": failed_commits_are_ignored,
    "nothing-is-synced": nothing_is_synced,
    "what-was-found-is-not-written-again": what_was_found_is_not_written_again,
}
"""By name; the empty one is none."""
