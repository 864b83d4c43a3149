"""The Supervisor's recorded verdict on each target state, word by word."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest

from interfaces.target_verdict import TargetRejectedError
from simulators.supervisor.target import read_target
from tests.simulators.lab import RECORDINGS, UUID

NOT_SIMULATED: Final = {
    "svc contract bad type": "contracts are not looked into",
    "array body": "the recording shows no verdict, only silence",
    "string body": "the recording shows no verdict, only silence",
}
IN_THE_LOG: Final = ("[error]   Could not store", "[error]   Failed to get", "[error]")


def _cases() -> list[Any]:
    rows = json.loads((RECORDINGS / "backend" / "target-state-validation.json").read_text())
    return [pytest.param(row, id=row["case"]) for row in rows if row["case"] not in NOT_SIMULATED]


@pytest.mark.parametrize("row", _cases())
def test_a_target_is_accepted_or_refused_with_the_recorded_words(row: dict[str, Any]) -> None:
    log, body = row["supervisor_log"], row.get("target")
    if isinstance(body, dict):  # the recordings say UUID for the device's
        body = {UUID if key == "UUID" else key: value for key, value in body.items()}

    if any("[success]" in line for line in log):
        assert read_target(UUID, body)
        return
    with pytest.raises(TargetRejectedError) as refused:
        read_target(UUID, body)

    assert list(refused.value.faults) == _reasons(log)


def _reasons(log: list[str]) -> list[str]:
    """The reasons alone, without the lines that introduce them."""
    reasons = []
    for line in log:
        words = line.removeprefix("[error]").strip()
        words = words.removeprefix("Failed to get target state for device: Error: ")
        if not words.startswith("Could not store"):
            reasons.append(words)
    return reasons


def test_a_rejection_never_comes_for_a_key_that_nobody_knows() -> None:
    body = {UUID: {"name": "a", "config": {}, "apps": {}, "is_new": {"to": "us"}}}

    assert read_target(UUID, body).name == "a"
