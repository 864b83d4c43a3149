"""A device's data directory with a story in it, and the command line on it, in this process."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from baserunner.cli import main
from baserunner.machines import MACHINES
from journal.facts import Stamp
from journal.journal import Journal
from journal.recall import recall

NODE = "6f1dcb1c5b3e4c0c9d5b8f7a6e5d4c3b"
SETTINGS = (
    "BASEOS_CLOUDLY_URL", "BASEOS_DATA_DIR", "BASEOS_JOIN_TOKEN", "BASEOS_LOCK_DIR", "BASEOS_LOG_LEVEL",
    "BALENA_SUPERVISOR_ADDRESS", "BALENA_SUPERVISOR_API_KEY", "BALENA_DEVICE_UUID", "SERVEZONE_RUNTIME",
)  # fmt: skip
POLICY = {"health_soak_s": 2.0, "health_deadline_s": 8.0}


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]

    def is_one_line(self) -> bool:
        return self.out == "" and self.err.count("\n") == 1 and self.err.startswith("baserunner: ")


@dataclass
class Device:
    data: Path
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]
    tick: Iterator[int] = field(default_factory=lambda: count(1))
    boot: str = "boot-1"
    started: int = 0
    """The tick at which this boot began."""
    wall_ms: int = 1_795_415_000_000
    """What the wall clock said at tick 0; set it for a clock that jumps."""
    skew_ms: int | None = None

    @property
    def home(self) -> Path:
        return self.data / "baseos"

    def __call__(self, *words: str, stdin: str = "", **settings: str) -> Said:
        """Run `baserunner` with these words, as its console script does."""
        self.capsys.readouterr()
        with self.monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["baserunner", *words])
            patch.setattr(sys, "stdin", io.StringIO(stdin))
            for name in SETTINGS:
                patch.delenv(name, raising=False)
            patch.setenv("BASEOS_DATA_DIR", str(self.data))
            for name, value in settings.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as ended:
                main()
        seen = self.capsys.readouterr()
        assert "Traceback" not in seen.err
        return Said(int(ended.value.code or 0), seen.out, seen.err)

    def stamp(self) -> Stamp:
        tick = next(self.tick)
        return Stamp(
            at_ms=self.wall_ms + 1000 * tick,
            boot_id=self.boot,
            mono_ms=1000 * (tick - self.started),
            skew_ms=self.skew_ms,
        )

    def reboot(self, boot: str, *, off_ms: int = 60_000, clock_ms: int | None = None) -> None:
        """Power was away for `off_ms`; `clock_ms`: what the wall clock says then, if it did not keep the time."""
        self.started = next(self.tick)
        self.boot, self.skew_ms = boot, None
        self.wall_ms += off_ms
        if clock_ms is not None:
            self.wall_ms = clock_ms - 1000 * self.started

    @contextmanager
    def writing(self) -> Iterator[Callable[..., None]]:
        """Hold the journal as a running agent does; yields `tell(stream, kind, **values)`."""
        self.home.mkdir(parents=True, exist_ok=True)
        with Journal.open(self.home, stamp=self.stamp, new_epoch=lambda: "e" * 32) as journal:

            def tell(stream: str, kind: str, **values: object) -> None:
                machine = MACHINES[stream.partition("/")[0]].machine
                recall(journal, stream, machine).record(kind, values)

            yield tell

    def live(self) -> None:
        """Enroll, update once, be killed in the middle of the second update, and finish it."""
        with self.writing() as tell:
            tell("enrollment/1", "identity-drawn", node_id=NODE)
            tell("enrollment/1", "register-requested", node_id=NODE, token_fingerprint="ab")
            tell("enrollment/1", "enrolled", node_id=NODE, token_generation=1)
            tell("heartbeat/1", "run-started", agent_version="0.1.0")
            self.update(tell, 1, upto="verifying")
            tell("app-update/1", "health-passed", soak_s=2.0)
            self.update(tell, 2, upto="applying")
            tell("heartbeat/1", "run-ended", how="interrupted")
            tell("heartbeat/2", "run-started", agent_version="0.1.0")
            tell("app-update/2", "applied")
            tell("app-update/2", "health-passed", soak_s=2.0)

    def update(self, tell: Callable[..., None], attempt: int, *, upto: str) -> None:
        """One attempt, up to a state on the straight way."""
        stream, version = f"app-update/{attempt}", f"1.{attempt}.0"
        release = {
            "release": f"c{attempt}",
            "version": version,
            "images": [["main", "app@sha256:1"]],
        }
        way: tuple[tuple[str, str, dict[str, object]], ...] = (
            ("offered", "offered", {"deployment": f"d{attempt}", "generation": attempt, **release, "policy": POLICY}),
            ("admitted", "admitted", {"running": None}),
            ("download-requested", "downloading", {}),
            ("staged", "staged", {}),
            ("apply-requested", "applying", {}),
            ("applied", "verifying", {}),
        )  # fmt: skip
        for kind, state, values in way:
            tell(stream, kind, **values)
            if state == upto:
                return
