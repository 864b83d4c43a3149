"""What a Supervisor does when its backend refuses, as recorded: nothing changes, and it asks again."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest

from simulators.supervisor import Reported
from simulators.world import run_virtual
from tests.simulators.lab import RECORDINGS, Lab, a_lab, target
from tests.simulators.recorded_backend import recorded_rows
from tests.simulators.recorded_lab import RecordedLab
from tests.simulators.test_recorded_backend import attempt

RECORDED = json.loads((RECORDINGS / "backend" / "backend-error-behaviour.json").read_text())
LOOKS = [row for row in RECORDED if "GET state" in row]
REPORTS = [row for row in RECORDED if "PATCH state" in row]
RETRIES = re.compile(r"Retrying device state report in ([0-9.]+) seconds")


@pytest.mark.parametrize("row", LOOKS, ids=lambda row: str(row["GET state"]))
def test_a_look_at_the_target_that_is_refused_changes_nothing_and_update_says_204(
    tmp_path: Path, row: dict[str, int]
) -> None:
    shown: list[object] = []

    async def story(lab: RecordedLab) -> None:
        await lab.pass_(30)
        shown.append(lab.supervisor.kept.target)
        lab.backend.refuse_state = (row["GET state"], {"Retry-After": "7"})
        answer = await lab.client.post("/v1/update", json={})
        assert answer.status_code == row["update_status"]
        await lab.pass_(1)
        shown.append((await lab.client.get("/v2/state/status")).json()["appState"])
        await lab.pass_(300)
        shown.append(lab.supervisor.kept.target)

    lab = attempt(tmp_path, recorded_rows("first-boot", 1, 8), story, name="lab-initial")

    assert shown[0] == shown[2]
    assert shown[1] == "applied"
    assert lab.backend.complaints == []
    polls = [
        at
        for kind, at in zip(lab.backend.asked, lab.backend.at_s, strict=True)
        if kind == "GET state"
    ]
    assert min(b - a for a, b in itertools.pairwise(polls[3:])) >= 15, (
        "Retry-After is not read here"
    )


@pytest.mark.parametrize("row", REPORTS, ids=lambda row: str(row["PATCH state"]))
def test_a_report_that_is_refused_is_handed_in_again_after_the_recorded_wait(
    tmp_path: Path, row: dict[str, Any]
) -> None:
    refusal = Reported(row["PATCH state"], row["hdr"].get("Retry-After"), '{"error": "forced"}')

    async def story() -> Lab:
        async with a_lab(tmp_path) as lab:
            assert lab.source is not None
            await lab.pass_(30)
            lab.source.answer = refusal
            await lab.apply(target(1))
            return lab

    lab = run_virtual(story)

    said = "\n".join(lab.supervisor.host_journal.read(unit=None, count=None))
    recorded = "\n".join(row["log"])
    assert RETRIES.findall(said)[0] == RETRIES.findall(recorded)[0]
    assert f"Device state report failure! Status code: {refusal.status} - message: {{" in said
    assert recorded.startswith(
        f"[error]   Device state report failure! Status code: {refusal.status} - message: {{"
    )


def test_what_is_refused_is_not_lost_and_each_attempt_says_what_is_true_then(
    tmp_path: Path,
) -> None:
    async def story() -> Lab:
        async with a_lab(tmp_path) as lab:
            assert lab.source is not None
            await lab.pass_(30)
            lab.source.reports.clear()
            lab.source.answer = Reported(500)
            await lab.apply(target(1))
            await lab.pass_(20)
            lab.source.answer = Reported(200)
            await lab.pass_(40)
            return lab

    lab = run_virtual(story)

    assert lab.source is not None
    told = [str(report) for report in lab.source.reports]
    assert "Downloading" in told[0]
    assert "Running" in told[-1]
    assert len(told) == 3, "two refused, and the one that was taken"


def test_a_backend_without_config_variables_is_asked_again_for_ever(tmp_path: Path) -> None:
    rows = [row for row in recorded_rows("first-boot", 1, 8) if row["seq"] not in (5, 6, 8)]
    rows[3] = {**rows[3], "repeated": 100, "response": {**rows[3]["response"], "status": 404}}

    async def story(lab: RecordedLab) -> None:
        await lab.pass_(60)

    lab = attempt(tmp_path, rows, story)

    assert lab.backend.asked.count("POST variable") > 10
    assert "PATCH report" not in lab.backend.asked
