"""What people see of nodes: plain values for the page, the tables and `--json`. Pure.

Rules:
- A node is online while it was seen within two and a half heartbeat intervals, late up to ten, then offline.
- Times are shown relative to ours; a device's own clock is shown as long as it can be true.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cloudly import labels
from cloudly.reports import load, mapping, text, waits, whole
from cloudly.voices import FORGOTTEN_MS, alarm, notice

ONLINE_INTERVALS = 2.5  # one lost heartbeat is weather, two are news
LATE_INTERVALS = 10.0
AHEAD_MS = 60_000  # a trusted clock is within a minute of ours (interfaces.reported.ClockState)
LONGEST_OFFLINE_MS = 366 * 86_400_000  # a device may be away for long; 1970 is longer


@dataclass(frozen=True, slots=True)
class NodeView:
    number: int
    """Its balena device id; newer nodes have greater ones."""
    node_id: str
    hostname: str
    device_type: str
    agent_version: str
    fleet: str
    labels: Mapping[str, str]
    state: str
    """new, online, late, offline, degraded, needs-operator, quarantined, revoked or retired."""
    state_detail: str
    last_seen_at_ms: int | None
    release: str | None
    """The commit that its Supervisor says is running."""
    release_version: str | None
    wanted_version: str | None
    wanted_release: str | None
    generation: int
    observed_generation: int
    deployment: str | None
    deployment_state: str | None
    deployment_open: bool
    rollback_of: str | None
    update_state: str | None
    update_version: str | None
    progress_percent: int | None
    waiting: tuple[str, ...]
    token_generation: int | None
    """Of its node token; None: its agent has not enrolled."""
    token_since_ms: int | None
    rotation: str
    """How far another node token is that it was asked for; empty: it was not."""

    @property
    def name(self) -> str:
        return self.hostname or self.node_id[:12]


def node_view(
    row: Mapping[str, Any], *, versions: Mapping[str, str], now_ms: int, every_s: float
) -> NodeView:
    """A node from its row (`store.reading.NODES`) and what it reported."""
    reported = load(row["reported"])
    update = mapping(reported.get("update"))
    state, detail = state_of(row, reported, now_ms=now_ms, every_s=every_s)
    release = text(reported.get("release"))
    return NodeView(
        number=row["id"],
        node_id=row["node_id"],
        hostname=row["hostname"],
        device_type=row["device_type"],
        agent_version=row["agent_version"],
        fleet=row["fleet"],
        labels=labels.load(row["labels"]),
        state=state,
        state_detail=detail,
        last_seen_at_ms=row["last_seen_at_ms"],
        release=release,
        release_version=versions.get(release or ""),
        wanted_version=row["wanted_version"],
        wanted_release=row["wanted_release"],
        generation=row["generation"] or 0,
        observed_generation=row["observed_generation"] or 0,
        deployment=row["deployment"],
        deployment_state=row["deployment_state"],
        deployment_open=row["deployment_closed"] == 0,
        rollback_of=row["rollback_of"],
        update_state=text(update.get("state")),
        update_version=text(update.get("version")),
        progress_percent=whole(update.get("progress_percent")),
        waiting=waits(reported),
        token_generation=row["token_generation"],
        token_since_ms=row["token_since_ms"],
        rotation=rotation_of(row),
    )


def rotation_of(row: Mapping[str, Any]) -> str:
    if row["next_hash"] is not None:
        return "the next one is announced, and not used yet"
    return "asked for another one" if row["rotate_asked_at_ms"] is not None else ""


def state_of(
    row: Mapping[str, Any], reported: Mapping[str, Any], *, now_ms: int, every_s: float
) -> tuple[str, str]:
    """One word for a node, the most urgent first, and a sentence where there is one."""
    kept_out = _kept_out(row)
    if kept_out is not None:
        return kept_out
    if row["alarm"]:
        return "needs-operator", "two devices speak as this node"
    if row["needs_operator"]:
        return "needs-operator", row["needs_operator"]
    if row["last_seen_at_ms"] is None:
        return "new", "its agent has not sent a heartbeat yet"
    presence = presence_of((now_ms - row["last_seen_at_ms"]) / 1000 / every_s)
    degraded = reported.get("degraded")
    if presence == "online" and isinstance(degraded, list) and degraded:
        return "degraded", text(degraded[0]) or ""
    return presence, ""


def _kept_out(row: Mapping[str, Any]) -> tuple[str, str] | None:
    """What an operator said of it, which is more than what it says itself."""
    if row["retired_at_ms"] is not None:
        return "retired", word_of(row["retirement"])
    if row["revoked_at_ms"] is not None:
        return "revoked", "it may come back with a fresh join token, or when it is readmitted"
    if row["quarantined_at_ms"] is not None:
        return "quarantined", word_of(row["quarantine"])
    return None


def word_of(document: str | None) -> str:
    """By whom and why, of an operator's word on a node."""
    said = load(document)
    by, reason = text(said.get("by")) or "", text(said.get("reason")) or ""
    return f"{reason} ({by})" if by else reason


def asks_operator(row: Mapping[str, Any]) -> tuple[str, ...]:
    """What only an operator can settle, a sentence each."""
    told = load(row["told"])
    clone = (
        alarm(row["fenced"], row["fenced_since_ms"], told, row["node_id"]) if row["alarm"] else None
    )
    return tuple(one for one in (clone, row["needs_operator"]) if one)


def fence_notice(row: Mapping[str, Any], now_ms: int) -> str:
    """What is worth a look and no alarm; empty: nothing is."""
    recent = row["fenced"] and now_ms - row["fenced_at_ms"] < FORGOTTEN_MS
    return notice(row["fenced"], row["fenced_at_ms"]) if recent and not row["alarm"] else ""


@dataclass(frozen=True, slots=True)
class FindingView:
    verdict: str
    what: str
    seen: str
    todo: str


@dataclass(frozen=True, slots=True)
class DiagnosisView:
    """What a node found when it looked at itself; its words are shown and never trusted."""

    asked_at_ms: int
    answered_at_ms: int | None
    answer: dict[str, Any] | None
    """None: it has not answered yet."""
    findings: tuple[FindingView, ...]

    @property
    def well(self) -> bool:
        return self.answer is not None and all(one.verdict != "bad" for one in self.findings)


def diagnosis_view(row: Mapping[str, Any]) -> DiagnosisView:
    """From its row."""
    answer = None if row["answer"] is None else load(row["answer"])
    told = (answer or {}).get("findings")
    findings = [mapping(one) for one in told] if isinstance(told, list) else []
    return DiagnosisView(
        asked_at_ms=row["asked_at_ms"],
        answered_at_ms=row["answered_at_ms"],
        answer=answer,
        findings=tuple(
            FindingView(
                *(text(one.get(name)) or "" for name in ("verdict", "what", "seen", "todo"))
            )
            for one in findings
        ),
    )


def presence_of(silent_intervals: float) -> str:
    """online, late or offline, after that many heartbeat intervals of silence."""
    if silent_intervals > LATE_INTERVALS:
        return "offline"
    return "late" if silent_intervals > ONLINE_INTERVALS else "online"


def believable(at_ms: int, now_ms: int) -> bool:
    """Whether a device's clock can have been right when it said so."""
    return now_ms - LONGEST_OFFLINE_MS <= at_ms <= now_ms + AHEAD_MS


def ago(then_ms: int | None, now_ms: int) -> str:
    """A moment relative to now, for people."""
    if then_ms is None:
        return "never"
    seconds = (now_ms - then_ms) // 1000
    if seconds < 0:
        return "in the future"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"
