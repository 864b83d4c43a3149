"""Tags on demand, and metrics in their own time."""

from __future__ import annotations

import itertools
from pathlib import Path

from tests.simulators.lab import UUID
from tests.simulators.recorded_backend import METRICS, kind_of, recorded_rows
from tests.simulators.recorded_lab import KEY, RecordedLab
from tests.simulators.test_recorded_backend import attempt

FIRST_BOOT = recorded_rows("first-boot", 1, 8)


def test_tags_are_asked_of_the_backend_each_time_in_the_recorded_way(tmp_path: Path) -> None:
    async def story(lab: RecordedLab) -> None:
        await lab.pass_(30)
        lab.backend.tag_rows = [{"id": 7, "tag_key": "place", "value": "roof"}]
        for _ in range(2):
            answer = await lab.client.get("/v2/device/tags")
            tags = [{"id": 7, "name": "place", "value": "roof"}]
            assert answer.json() == {"status": "success", "tags": tags}

    lab = attempt(tmp_path, FIRST_BOOT, story, name="lab-initial")

    recorded = recorded_rows("first-boot", 9, 9)[0]["request"]
    asked = [
        (path, headers) for _, path, headers, _ in lab.backend.requests if "device_tag" in path
    ]
    assert len(asked) == 2
    assert asked[0][0] == recorded["path"]
    assert asked[0][1]["user-agent"] == dict(recorded["headers"])["User-Agent"]


def test_tags_that_a_program_sets_are_told_once_at_most_every_10_s(tmp_path: Path) -> None:
    async def story(lab: RecordedLab) -> None:
        await lab.pass_(30)
        for value in ("roof", "roof", "cellar"):
            answer = await lab.client.patch("/v2/device/tags", json={"place": value})
            assert answer.status_code == 202
            await lab.pass_(1)
        await lab.pass_(60)
        await lab.client.patch("/v2/device/tags", json={"place": "cellar"})
        await lab.pass_(60)

    lab = attempt(tmp_path, FIRST_BOOT, story, name="lab-initial")

    told = [
        (at, body)
        for (method, path, _, body), at in zip(
            lab.backend.requests,
            [
                at
                for kind, at in zip(lab.backend.asked, lab.backend.at_s, strict=True)
                if kind != "POST logs"
            ],
            strict=True,
        )
        if kind_of(method, path) == "PATCH told tags"
    ]
    assert [body for _, body in told] == [{UUID: {"place": "roof"}}, {UUID: {"place": "cellar"}}]
    assert told[1][0] - told[0][0] >= 10


def test_a_key_is_asked_for_before_tags_are_shown(tmp_path: Path) -> None:
    async def story(lab: RecordedLab) -> None:
        await lab.pass_(30)
        answer = await lab.client.get(
            "/v2/device/tags", headers={"Authorization": f"Bearer {KEY}x"}
        )
        assert answer.status_code == 401

    lab = attempt(tmp_path, FIRST_BOOT, story, name="lab-initial")

    assert "GET tags" not in lab.backend.asked


def test_metrics_alone_are_reported_at_most_every_300_s(tmp_path: Path) -> None:
    async def story(lab: RecordedLab) -> None:
        await lab.pass_(3600)

    lab = attempt(tmp_path, FIRST_BOOT, story, name="lab-initial")

    at_s = [
        at
        for kind, at in zip(lab.backend.asked, lab.backend.at_s, strict=True)
        if kind == "PATCH report"
    ]
    bodies = [
        next(iter(body.values()))
        for method, path, _, body in lab.backend.requests
        if kind_of(method, path) == "PATCH report"
    ]
    assert 10 < len(bodies) <= 13
    assert all(set(body) <= set(METRICS) for body in bodies[1:])
    assert min(b - a for a, b in itertools.pairwise(at_s)) >= 299.9
