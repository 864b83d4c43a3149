"""What a fact of a rollout says, in a sentence for people. The fact's own name always stands beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from interfaces.why import printable

# fmt: off
SENTENCES: dict[str, str] = {
    "created":              "{by} created it: release {version} ({release})",
    "approval-asked":       "{by} asked for its approval",
    "approved":             "{by} approved it: {note}",
    "refused":              "{by} refused it: {reason}",
    "started":              "{by} started it",
    "phase-opened":         "phase {phase} ({name}) is open",
    "outcomes-counted":     "{counted}",
    "phase-widened":        "nobody of phase {phase} by place is left and too few are good: any node may come",
    "phase-filled":         "phase {phase} is filled: nobody more is let in",
    "settled":              "every node of phase {phase} has its outcome: the soak begins",
    "soak-passed":          "phase {phase} has passed: {evidence}",
    "phase-approval-asked": "waits for a yes to phase {phase}: {reason}",
    "phase-approved":       "{by} said yes to phase {phase}: {note}",
    "paused":               "{by} paused it: {reason}",
    "resumed":              "{by} resumed it: {reason}",
    "halted":               "{by} halted it ({why}): {reason}",
    "rollback-ordered":     "{by} ordered every node back to its last good release: {reason}",
    "rolled-back":          "the nodes are back; missing: {left}",
    "aborted":              "{by} aborted it: {reason}",
    "completed":            "every phase has passed: {evidence}",
    "late-outcome":         "too late to count: node {node} now says {outcome}, counted as {counted_as}",
}
# fmt: on


def sentence(kind: str, values: Mapping[str, Any]) -> str:
    """What is missing is a question mark; an unknown kind, from a newer Cloudly, is its plain values."""
    if kind not in SENTENCES:
        plain = (f"{key}={value}" for key, value in values.items())
        return printable(", ".join(plain))
    known = {key: str(value) for key, value in values.items()}
    if isinstance(values.get("phase"), int):
        known["phase"] = str(values["phase"] + 1)  # people count from one
    if kind == "outcomes-counted":
        known["counted"] = _counted(values)
    return printable(SENTENCES[kind].format_map(_Known(known)).removesuffix(": "))


class _Known(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return "?"


def _counted(values: Mapping[str, Any]) -> str:
    """`phase 1: 3 succeeded, 1 failed (node a1: health check failed)`."""
    parts = []
    for number, counts in values.get("phases", {}).items():
        many = ", ".join(f"{more} {name.replace('_', ' ')}" for name, more in counts.items())
        parts.append(f"phase {int(number) + 1}: {many}")
    bad = [
        f"node {node} {outcome}: {reason}"
        for node, outcome, reason in values.get("failures", [])[:3]
    ]
    more = len(values.get("failures", [])) - len(bad) + values.get("unnamed", 0)
    bad += [f"and {more} more"] if more else []
    return "; ".join(parts) + (f" ({'; '.join(bad)})" if bad else "")
