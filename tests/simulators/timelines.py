"""Recorded and simulated timelines, made comparable: what changed on each path, in order, with its time."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final

from tests.simulators.lab import RECORDINGS, Lab

PATHS: Final = (
    "/v2/state/status",
    "/v1/device",
    "/v2/applications/state",
    "/v2/applications/1001/state",
)
LOOK_EVERY_S: Final = 0.05
LONG_AFTER_S: Final = 11.0
"""From then on nothing happens that has not happened before: look ten times less often."""


@dataclass(frozen=True)
class Seen:
    at_s: float
    state: str
    """The whole body, ids replaced by the order of their first appearance."""


@dataclass
class Timeline:
    by_path: dict[str, list[Seen]] = field(default_factory=lambda: {path: [] for path in PATHS})
    _names: dict[str, str] = field(default_factory=dict)

    def add(self, at_s: float, path: str, body: Any) -> None:
        state = json.dumps(self._named(body), sort_keys=True)
        seen = self.by_path[path]
        if not seen or seen[-1].state != state:
            seen.append(Seen(at_s, state))

    def states(self, path: str) -> list[str]:
        return [seen.state for seen in self.by_path[path]]

    def _named(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {
                key: self._name(key, inner) if key in IDS else self._named(inner)
                for key, inner in value.items()
            }
        if isinstance(value, list):
            return [self._named(inner) for inner in value]
        return value

    def _name(self, kind: str, value: str) -> str:
        same_kind = sum(1 for name in self._names.values() if name.startswith(kind))
        return self._names.setdefault(value, f"{kind} {same_kind}")


IDS: Final = ("containerId", "createdAt", "dockerImageId")


def recorded_timeline(name: str) -> Timeline:
    timeline = Timeline()
    rows = json.loads((RECORDINGS / "device-api" / f"TIMELINE_{name}.json").read_text())
    for row in rows[1:]:
        timeline.add(row["t"], row["path"], row["body"])
    return timeline


async def watched(lab: Lab, body: dict[str, Any] | None, seconds: float) -> Timeline:
    """POST this update, and look at everything until `seconds` have passed."""
    timeline = Timeline()
    assert await lab.update(**(body or {})) == 204
    begin = lab.world.monotonic()
    while (at_s := lab.world.monotonic() - begin) < seconds:
        for path in PATHS:
            timeline.add(at_s, path, await lab.get(path))
        await lab.pass_(LOOK_EVERY_S * (1 if at_s < LONG_AFTER_S else 10))
    return timeline


def matched(recorded: list[Seen], simulated: list[Seen]) -> list[tuple[Seen, Seen | None]]:
    """Each recorded state with the simulated one that stands for it, in order; None: there is none left."""
    pairs: list[tuple[Seen, Seen | None]] = []
    rest = iter(simulated)
    for wanted in recorded:
        pairs.append((wanted, next((seen for seen in rest if seen.state == wanted.state), None)))
        if pairs[-1][1] is None:
            break
    return pairs
