"""The anchor: how far the journal had come, held outside the data directory, where the host offers a place.

A journal that lost its tail looks whole: nothing in it is wrong. What was shipped, Cloudly knows; for the rest there is
this file. It holds the epoch and the durable head of each lane, is written now and then, and may lag behind: a journal
that ends before it, or is of another life, has lost facts (a restored copy, a disk that lied).
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

from baserunner.logs import Changes
from baserunner.problems import EpochOver
from interfaces.world import World
from journal.facts import Head, Lane
from journal.journal import Journal

log = logging.getLogger(__name__)

FILE = "baseos-journal-anchor.json"
HOLD_EVERY_S = 60.0


class Anchor:
    """`directory`: None where the host offers no place; then it holds nothing and finds nothing."""

    def __init__(self, directory: Path | None, world: World) -> None:
        self._path = None if directory is None else directory / FILE
        self._world = world
        self._held_at: float | None = None
        self._trouble = Changes()

    def check(self, journal: Journal) -> None:
        """Raises EpochOver when the journal is behind what was held; else holds where it is now."""
        held = self._read()
        if held is not None:
            _judge(journal, *held)
        self.hold(journal, now=True)

    def hold(self, journal: Journal, *, now: bool = False) -> None:
        """Write where the journal is, at most once a minute unless `now`. A place that fails is said once."""
        at = self._world.monotonic()
        due = now or self._held_at is None or at - self._held_at >= HOLD_EVERY_S
        if self._path is None or not due:
            return
        self._held_at = at
        heads = {lane.value: journal.durable_head(lane) for lane in Lane}
        told = {lane: {"seq": head.seq, "hash": head.hash.hex()} for lane, head in heads.items()}
        text = json.dumps({"epoch": journal.epoch, "lanes": told})
        try:
            _replace(self._path, text.encode())
        except OSError as error:
            why = f"the anchor {self._path} cannot be written: {error.strerror}"
            self._trouble.tell(logging.WARNING, log, why)
        else:
            self._trouble.tell(logging.INFO, log, "")

    def _read(self) -> tuple[str, dict[Lane, Head]] | None:
        """What was held; None when there is nothing, or nothing that can be read: then it says nothing."""
        if self._path is None:
            return None
        try:
            held = json.loads(self._path.read_bytes())
            lanes = {
                lane: Head(int(told["seq"]), bytes.fromhex(told["hash"]))
                for lane in Lane
                for told in [held["lanes"][lane.value]]
            }
            return str(held["epoch"]), lanes
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("the anchor %s says nothing: %s", self._path, type(error).__name__)
            return None


def _judge(journal: Journal, epoch: str, held: dict[Lane, Head]) -> None:
    if epoch != journal.epoch:
        if journal.newest_n() == 0 or _began_after(journal, epoch):
            return
        seen = f"the anchor holds epoch {epoch}, this journal is of {journal.epoch}"
        raise EpochOver("tail-lost", f"{seen}: it is an old copy")
    for lane, then in held.items():
        head = journal.head(lane)
        if head.seq < then.seq:
            seen = f"the {lane} lane ends at {head.seq}, and had come to {then.seq}"
            raise EpochOver("tail-lost", f"{seen} by the anchor: its tail was lost")
        if then.seq > journal.base(lane).seq and _hash_at(journal, lane, then.seq) != then.hash:
            raise EpochOver("forked", f"{lane} {then.seq} is not the fact that the anchor holds")


def _began_after(journal: Journal, epoch: str) -> bool:
    """Whether this journal's first fact says that it follows that epoch: the anchor had not been told yet."""
    first = journal.facts(lane=Lane.CORE, limit=1)
    return bool(first) and first[0].values.get("from") == epoch


def _hash_at(journal: Journal, lane: Lane, seq: int) -> bytes:
    return journal.facts(lane=lane, after=seq - 1, limit=1)[0].hash


def _replace(path: Path, content: bytes) -> None:
    """Whole at any time; not synced: one that is older than it could be is still true."""
    new = path.with_name(path.name + ".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, content)
    finally:
        os.close(descriptor)
    new.replace(path)
