"""What the page and the CLI show of a node's two stories: the rows behind them, read at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cloudly.balena.sides import Journaled, Reported, disagreements, read_reported
from cloudly.reports import load, mapping, text
from cloudly.store import reading
from cloudly.store.devices import Devices
from cloudly.store.sql import Connection


@dataclass(frozen=True, slots=True)
class BothSides:
    journaled: Journaled
    reported: Reported | None
    """None: no Supervisor has registered as this device."""
    disagreements: tuple[str, ...]


def both_sides(db: Connection, devices: Devices, row: Mapping[str, Any], now_ms: int) -> BothSides:
    """`row` is one of `reading.NODES`."""
    said = devices.said(db, row["id"])
    reported = None if said is None else read_reported(said, devices.app_uuid)
    wanted = row["wanted_release"]
    images = {} if wanted is None else reading.images(db, wanted)
    journaled = read_journaled(row, images)
    return BothSides(journaled, reported, disagreements(journaled, reported, now_ms=now_ms))


def read_journaled(row: Mapping[str, Any], images: Mapping[str, str]) -> Journaled:
    told = load(row["reported"])
    available = mapping(told.get("supervisor")).get("available")
    return Journaled(
        heard_at_ms=row["last_seen_at_ms"],
        sees_supervisor=available if isinstance(available, bool) else None,
        release=text(told.get("release")),
        wanted=row["wanted_release"],
        wanted_version=row["wanted_version"],
        outcome=row["deployment_state"],
        outcome_at_ms=row["deployment_state_at_ms"],
        open=row["deployment_closed"] == 0,
        images=images,
    )
