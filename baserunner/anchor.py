"""The anchor: how far the journal had come, held outside the data directory, where the host offers a place.

A journal that lost its tail looks whole: nothing in it is wrong. What was shipped, Cloudly knows; for the rest there is
this file. It holds the epoch and the durable head of each lane, and may lag: a journal that ends before it, or is
of another life, has lost facts (a restored copy, a disk that lied, a disk that was replaced).
"""

from __future__ import annotations

import json
import logging
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from baserunner.logs import Changes
from baserunner.problems import EpochOver
from journal.facts import Head, Lane
from journal.journal import Journal

log = logging.getLogger(__name__)

FILE = "baseos-journal-anchor.json"
KEPT = 8
"""Epochs in a row that may end before Cloudly has a fact of the next one."""
MOST_BYTES = 16_384
MOST_SEQ = 2**53


@dataclass(frozen=True, slots=True)
class Held:
    """How far an epoch had come."""

    epoch: str
    heads: dict[Lane, Head]
    before: tuple[dict[str, Any], ...] = ()
    """The same of epochs before it, newest first, while Cloudly has not a fact of this one."""

    def told(self) -> dict[str, Any]:
        """As the first fact of the next epoch tells it."""
        lanes = {lane.value: head.seq for lane, head in self.heads.items()}
        return {"epoch": self.epoch, "lanes": lanes, "before": list(self.before)}


class Anchor:
    """`directory`: None where the host offers no place; then it holds nothing and finds nothing."""

    def __init__(self, directory: Path | None) -> None:
        self._path = None if directory is None else directory / FILE
        self._held = ""
        self._before: tuple[dict[str, Any], ...] = ()
        self._trouble = Changes()

    def check(self, journal: Journal) -> None:
        """Raises EpochOver when the journal is behind what was held; else holds where it is now.

        A new journal on a device that had another says so in its first fact.
        """
        held = self.held()
        if held is not None and journal.newest_n() == 0 and held.epoch != journal.epoch:
            journal.append("epoch/1", "epoch-began", "", "", _after_a_lost_disk(held))
        elif held is not None:
            _judge(journal, held.epoch, held.heads)
        if held is not None:
            self._before = _before(held, journal.epoch)
        self.hold(journal)

    def hold(self, journal: Journal) -> None:
        """Write where the journal is. A place that fails is said once."""
        if self._path is None:
            return
        if self._before and journal.acked(Lane.CORE).seq > 0:
            self._before = ()
        heads = {lane.value: journal.durable_head(lane) for lane in Lane}
        told = {lane: {"seq": head.seq, "hash": head.hash.hex()} for lane, head in heads.items()}
        text = json.dumps({"epoch": journal.epoch, "lanes": told, "before": self._before})
        if text == self._held:
            return
        try:
            _replace(self._path, text.encode())
        except OSError as error:
            why = f"the anchor {self._path} cannot be written: {error.strerror}"
            self._trouble.tell(logging.WARNING, log, why)
        else:
            self._held = text
            self._trouble.tell(logging.INFO, log, "")

    def held(self) -> Held | None:
        """What was held; None when there is nothing, or nothing that can be read: then it says nothing."""
        if self._path is None:
            return None
        try:
            return _held(json.loads(_content(self._path)))
        except FileNotFoundError:
            return None
        except (
            OSError,
            ArithmeticError,
            ValueError,
            LookupError,
            TypeError,
            RecursionError,
        ) as error:
            log.warning("the anchor %s says nothing: %s", self._path, type(error).__name__)
            return None


def _content(path: Path) -> bytes:
    """Of a plain file (a pipe must not hold up the agent), no more than an anchor has. Raises OSError, ValueError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("it is no file")
        return os.read(descriptor, MOST_BYTES)
    finally:
        os.close(descriptor)


def _held(said: dict[str, Any]) -> Held:
    """Raises ValueError, LookupError, TypeError, ArithmeticError."""
    heads = {}
    for lane in Lane:
        told = said["lanes"][lane.value]
        heads[lane] = Head(_seq(told["seq"]), bytes.fromhex(told["hash"]))
    before = [
        {
            "epoch": _epoch(one["epoch"]),
            "lanes": {lane.value: _seq(one["lanes"][lane.value]) for lane in Lane},
        }
        for one in said.get("before", ())
    ]
    return Held(_epoch(said["epoch"]), heads, tuple(before[:KEPT]))


def _seq(told: object) -> int:
    if not isinstance(told, int) or not 0 <= told <= MOST_SEQ:
        raise ValueError("it is no seq")
    return told


def _epoch(told: object) -> str:
    if not isinstance(told, str) or not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", told):
        raise ValueError("it is no epoch")
    return told


def _before(held: Held, epoch: str) -> tuple[dict[str, Any], ...]:
    if held.epoch == epoch:
        return held.before
    told = held.told()
    del told["before"]
    return (told, *held.before)[:KEPT]


def _judge(journal: Journal, epoch: str, held: dict[Lane, Head]) -> None:
    if epoch != journal.epoch:
        if _began_after(journal, epoch):
            return
        seen = f"the anchor holds epoch {epoch}, this journal is of {journal.epoch}"
        raise EpochOver("tail-lost", f"{seen}: it is an old copy")
    for lane, then in held.items():
        head = journal.head(lane)
        if head.seq < then.seq:
            seen = f"the {lane} lane ends at {head.seq}, and had come to {then.seq}"
            raise EpochOver("tail-lost", f"{seen} by the anchor: its tail was lost")
        if journal.hash_at(lane, then.seq) not in {None, then.hash}:
            said = f"{lane} {then.seq} is not the fact that the anchor holds"
            raise EpochOver("forked", said)


def _began_after(journal: Journal, epoch: str) -> bool:
    """Whether this journal's first fact says that it knows of that epoch: the anchor had not been told yet."""
    first = journal.facts(lane=Lane.CORE, limit=1)
    if not first or first[0].kind != "epoch-began":
        return False
    said = first[0].values
    return epoch in {said.get("from"), (said.get("known") or {}).get("epoch")}


def _after_a_lost_disk(held: Held) -> dict[str, object]:
    lanes = {
        lane.value: {
            "head": head.seq,
            "hash": head.hash.hex(),
            "acked": 0,
            "verified": 0,
            "carried": None,
            "lost": [[1, head.seq]] if head.seq else [],
        }
        for lane, head in held.heads.items()
    }
    come = " and ".join(f"{lane} {head.seq}" for lane, head in held.heads.items())
    problem = f"the journal is new, and the anchor knows that epoch {held.epoch} had come to {come}"
    carried = {lane.value: 0 for lane in Lane}
    return {
        "why": "disk", "from": held.epoch, "problem": problem, "kept_in": "", "lanes": lanes, "carried": carried,
        "known": held.told(),
    }  # fmt: skip


def _replace(path: Path, content: bytes) -> None:
    """Whole at any time; not synced: one that is older than it could be is still true."""
    new = path.with_name(path.name + ".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, content)
    finally:
        os.close(descriptor)
    new.replace(path)
