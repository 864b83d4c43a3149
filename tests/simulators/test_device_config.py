"""The config of a target becomes settings, and what the backend does not merge back is dropped."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from simulators.supervisor.device_config import changes, to_tell
from simulators.supervisor.settings import AT_FIRST, Settings
from simulators.supervisor.target import bare_config
from simulators.world import run_virtual
from tests.simulators.lab import Lab, a_lab, target
from tests.simulators.recorded_backend import recorded_rows
from tests.simulators.recorded_lab import RecordedLab
from tests.simulators.test_recorded_backend import attempt


def test_what_is_not_the_default_and_not_in_the_target_is_told_in_the_recorded_order() -> None:
    recorded = [
        (row["request"]["body"]["name"], row["request"]["body"]["value"])
        for row in recorded_rows("first-boot", 4, 5)
    ]

    assert to_tell(AT_FIRST, {}) == recorded
    assert to_tell(AT_FIRST, {"SUPERVISOR_POLL_INTERVAL": "900000"}) == recorded[1:]
    assert to_tell(AT_FIRST | {"SUPERVISOR_LOCAL_MODE": "true"}, {}) == recorded, "never that one"


def test_a_backend_that_does_not_merge_them_back_makes_the_device_drop_them(tmp_path: Path) -> None:
    async def story(lab: RecordedLab) -> None:
        await lab.pass_(30)

    lab = attempt(tmp_path, recorded_rows("first-boot", 1, 8), story, name="lab-initial")

    assert lab.supervisor.kept.config["SUPERVISOR_POLL_INTERVAL"] == "900000"
    assert lab.supervisor.kept.config["HOST_FIREWALL_MODE"] == "off"


def test_a_backend_that_merges_them_back_keeps_them(tmp_path: Path) -> None:
    rows = recorded_rows("first-boot", 1, 8)
    rows[2]["response"]["body"][next(iter(rows[2]["response"]["body"]))]["config"] = {
        "RESIN_SUPERVISOR_POLL_INTERVAL": "60000",
        "RESIN_HOST_FIREWALL_MODE": "",
    }

    async def story(lab: RecordedLab) -> None:
        await lab.pass_(30)

    lab = attempt(tmp_path, rows, story, name="lab-initial")

    assert lab.supervisor.kept.config == AT_FIRST
    assert "configuration change" not in str(lab.backend.lines)
    assert "POST variable" not in lab.backend.asked


@pytest.mark.parametrize(
    ("told", "taken_ms", "warns"),
    [
        ("120000", 120_000, False),
        ("120000ms", 120_000, False),
        ("soon", 900_000, True),
        ("", 900_000, True),
    ],
)
def test_the_poll_interval_is_what_the_target_says_and_nonsense_is_the_default(
    tmp_path: Path, told: str, taken_ms: int, *, warns: bool
) -> None:
    async def story() -> tuple[Lab, list[float]]:
        async with a_lab(tmp_path) as lab:
            assert lab.source is not None
            lines: list[dict[str, str]] = []
            lab.supervisor.teller.sink = lines.append
            lab.source.set_target(target(None, config={"RESIN_SUPERVISOR_POLL_INTERVAL": told}))
            await lab.update()
            await lab.pass_(5)
            said = [
                line["message"] for line in lines if "Warning: Ignoring invalid" in line["message"]
            ]
            assert bool(said) is warns
            looked: list[float] = []
            fetch = lab.source.fetch

            async def seen(identity: object) -> object:
                looked.append(lab.world.monotonic())
                return await fetch(identity)  # type: ignore[arg-type]  # handed through

            lab.source.fetch = seen  # type: ignore[method-assign]
            await lab.pass_(8000)
            return lab, looked

    lab, looked = run_virtual(story)

    assert lab.supervisor.settings.poll_interval_s == taken_ms / 1000
    pauses = [b - a for a, b in itertools.pairwise(looked)]
    assert min(pauses) >= taken_ms / 1000
    assert max(pauses) <= taken_ms / 1000 + 60, "the jitter"


def test_a_prefix_is_taken_off_and_the_newer_one_wins() -> None:
    config = {"RESIN_A": "old", "BALENA_A": "new", "A": "bare", "B": "bare"}

    assert bare_config(config) == {"A": "new", "B": "bare"}


def test_the_same_value_in_other_words_is_no_change() -> None:
    assert not changes(AT_FIRST, {**AT_FIRST, "SUPERVISOR_DELTA": "0"}).told
    assert changes(AT_FIRST, {**AT_FIRST, "SUPERVISOR_DELTA": "1"}).told == {
        "SUPERVISOR_DELTA": "1"
    }


def test_hardware_metrics_can_be_switched_off(tmp_path: Path) -> None:
    async def story() -> Lab:
        async with a_lab(tmp_path) as lab:
            assert lab.source is not None
            await lab.pass_(30)
            off = {"RESIN_SUPERVISOR_HARDWARE_METRICS": "false"}
            lab.source.set_target(target(None, config=off))
            await lab.update()
            await lab.pass_(5)
            assert Settings.of(lab.supervisor.kept.config).hardware_metrics is False
            lab.source.set_target(target(1, config=off))
            await lab.update()
            await lab.pass_(60)
            return lab

    lab = run_virtual(story)

    assert lab.source is not None
    told = next(iter(lab.source.reports[-1].values())) | next(iter(lab.source.reports[1].values()))
    assert (told["cpu_usage"], told["memory_usage"]) == (None, None)
