"""The real Cloudly of a trace: its database on disk, backed up, restored, looked into."""

from __future__ import annotations

import copy
import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from cloudly.app import create_app
from cloudly.settings import Settings
from cloudly.store import story
from cloudly.store.join_tokens import NewToken
from cloudly.store.join_tokens import create as create_token
from cloudly.store.store import FILE, Store
from cloudly.tokens import new_join_token
from interfaces.world import now_ms
from simulators.world import SimWorld
from tests.fuzz.line import Line, Told
from tests.world.kit import _a_new_database

EVERY_S = 60.0


class Cloud:
    def __init__(self, root: Path, seed: int) -> None:
        self._root = root
        self._seed = seed
        self._openings = 0
        self.lines: list[Line] = []
        self.told = Told()
        self.backup: tuple[Path, Told] | None = None
        self._home.mkdir()
        (self._home / FILE).write_bytes(_a_new_database())
        self._open()

    @property
    def _home(self) -> Path:
        return self._root / "cloudly"

    def _open(self) -> None:
        # Another seed at each opening: a restored server does not draw the same incarnation again.
        self._openings += 1
        world = SimWorld(f"cloud-{self._seed}-{self._openings}")
        self.world = world
        self.store = Store.open(self._home, world)
        settings = Settings(data_dir=self._home, heartbeat_every_s=EVERY_S, page=False)
        self.transport = httpx.ASGITransport(create_app(self.store, world, settings))
        for line in self.lines:
            line.inner, line.told = self.transport, self.told

    def back_up(self) -> None:
        self.store.close()
        to = self._root / f"backup-{self._openings}"
        to.mkdir()
        for file in self._home.glob(FILE + "*"):
            shutil.copy(file, to / file.name)
        self.backup = to, copy.deepcopy(self.told)
        self._open()

    def restore(self) -> bool:
        """From the last backup; the incarnation file beside the database is no part of one."""
        if self.backup is None:
            return False
        self.store.close()
        for file in self._home.glob(FILE + "*"):
            file.unlink()
        kept, told = self.backup
        for file in kept.iterdir():
            shutil.copy(file, self._home / file.name)
        self.told = copy.deepcopy(told)
        self._open()
        return True

    def new_join_token(self, uses: int = 100) -> str:
        new = NewToken(new_join_token(self.world), "fuzz", uses, now_ms(self.world), None)
        self.store.write_now(lambda db: create_token(db, new))
        return new.token

    def rows(self, query: str) -> list[dict[str, Any]]:
        return self.store.read_now(lambda db: [dict(row) for row in db.execute(query).fetchall()])

    def events(self) -> list[tuple[str, str, dict[str, Any]]]:
        """Epoch, lane and event, in the order in which Cloudly would show them."""
        rows = self.rows(
            "SELECT e.epoch, c.lane, c.events FROM journal_chunk c JOIN epoch e ON e.node=c.node AND e.n=c.epoch_n"
            " ORDER BY c.epoch_n, c.lane, c.first_seq"
        )
        return [
            (row["epoch"], row["lane"], event)
            for row in rows
            for event in json.loads(row["events"])
        ]

    def holes(self) -> tuple[dict[str, int], set[int]]:
        """The number of each epoch, and of those before which Cloudly says that one is missing."""
        epochs = [
            epoch
            for row in self.rows("SELECT id FROM node")
            for epoch in self.store.read_now(partial(story.epochs, node=row["id"]))
        ]
        return {one["epoch"]: one["n"] for one in epochs}, {
            one["n"] for one in epochs if one["hole"]
        }

    def gaps(self) -> list[dict[str, Any]]:
        rows = self.rows("SELECT id FROM node")
        return [
            gap
            for row in rows
            for found in (story.gaps, story.branch_gaps)
            for gap in self.store.read_now(partial(found, node=row["id"]))
        ]
