"""Time, machine, deployment, boot, places: what of a journal is asked for, and nothing else."""

from __future__ import annotations

import pytest

from baserunner.cli.clock import parse
from tests.cli.given import Device

NOW_MS = 1_795_415_700_000  # 2026-11-23 06:35:00 UTC
DAY_MS = 86_400_000


@pytest.fixture
def three_boots(device: Device) -> Device:
    """An update in each boot. The first two knew the time; the third was told it after its first fact."""
    for number in (1, 2, 3):
        with device.writing() as tell:
            if number > 1:
                tell(f"heartbeat/{number - 1}", "run-ended", how="interrupted")
            tell(f"heartbeat/{number}", "run-started", agent_version="0.1.0")
            device.skew_ms = 1_795_600_000_000 - device.wall_ms if number == 3 else 0
            device.update(tell, number, upto="verifying")
            tell(f"app-update/{number}", "health-passed", soak_s=2.0)
        if number < 3:
            device.reboot(
                f"boot-{number + 1}", off_ms=DAY_MS, clock_ms=30_000 if number == 2 else None
            )
    return device


def ns(device: Device, *words: str) -> list[int]:
    return [fact["n"] for fact in device("journal", "tail", "--json", *words).lines]


def test_a_boot_is_named_by_its_number_from_the_newest_or_by_how_its_id_begins(
    three_boots: Device,
) -> None:
    whole = three_boots("journal", "tail", "--json", "-n", "1000").lines
    by_boot = {
        boot: [fact["n"] for fact in whole if fact["boot_id"] == boot]
        for boot in ("boot-1", "boot-2", "boot-3")
    }

    assert ns(three_boots, "-n", "1000", "--boot", "0") == by_boot["boot-3"]
    assert ns(three_boots, "-n", "1000", "--boot", "-1") == by_boot["boot-2"]
    assert ns(three_boots, "-n", "1000", "--boot", "boot-1") == by_boot["boot-1"]
    assert [a["stream"] for a in three_boots("journal", "list", "--json", "--boot", "-2").lines] == [
        "app-update/1", "heartbeat/1",
    ]  # fmt: skip


def test_time_is_believable_time_even_where_it_was_told_later_in_the_boot(
    three_boots: Device,
) -> None:
    whole = three_boots("journal", "tail", "--json", "-n", "1000").lines
    third = [fact for fact in whole if fact["boot_id"] == "boot-3"]
    assert third[0]["skew_ms"] is None  # by its wall clock it was in 1970
    assert third[0]["clock_trusted"]

    since = ns(three_boots, "-n", "1000", "--since", "2026-11-25")
    until = ns(three_boots, "-n", "1000", "--until", "2026-11-23T12:00")

    assert since == [fact["n"] for fact in third]
    assert until == [fact["n"] for fact in whole if fact["boot_id"] == "boot-1"]
    assert ns(three_boots, "--since", "2027-01-01") == []


def test_a_deployment_is_named_by_how_its_id_begins(three_boots: Device) -> None:
    facts = three_boots("journal", "tail", "--json", "-n", "1000", "--deployment", "d2").lines
    listed = three_boots("journal", "list", "--json", "--deployment", "d2").lines

    assert {fact["stream"] for fact in facts} == {"app-update/2"}
    assert len(facts) == 7
    assert [attempt["stream"] for attempt in listed] == ["app-update/2"]


def test_a_script_pages_through_everything_once_in_either_direction(three_boots: Device) -> None:
    whole = ns(three_boots, "-n", "1000")
    forwards: list[int] = []
    backwards: list[int] = []

    while page := ns(three_boots, "-n", "4", "--after", str(forwards[-1] if forwards else 0)):
        forwards += page
    while page := ns(
        three_boots, "-n", "4", *(["--before", str(backwards[0])] if backwards else [])
    ):
        backwards[:0] = page

    assert forwards == backwards == whole


def test_the_list_is_paged_from_the_newest(three_boots: Device) -> None:
    whole = [a["stream"] for a in three_boots("journal", "list", "--json").lines]
    first = three_boots("journal", "list", "-n", "2")
    page = three_boots("journal", "list", "-n", "2", "--json").lines
    rest = three_boots("journal", "list", "--json", "--before", str(page[-1]["n"])).lines

    assert [a["stream"] for a in page + rest] == whole
    assert f"--before {page[-1]['n']}" in first.err
    assert three_boots("journal", "list", "-n", "0", "--json").out == ""


def test_a_part_of_a_story_is_shown_without_the_rest(three_boots: Device) -> None:
    whole = three_boots("journal", "show", "app-update/2", "--json").lines

    assert three_boots("journal", "show", "app-update/2", "-n", "2", "--json").lines == whole[-2:]
    after = ["--after", str(whole[1]["n"])]
    assert three_boots("journal", "show", "app-update/2", *after, "--json").lines == whole[2:]
    nothing = three_boots("journal", "show", "app-update/2", "--boot", "0")
    assert (nothing.code, nothing.is_one_line()) == (1, True)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--since", "yesterday"), 2),
        (("--since", ""), 2),
        (("--until", "2026-13-01"), 2),
        (("--since", "1h", "--until", "2h"), 2),
        (("--since", "9999999999999999999d"), 2),
        (("--boot", ""), 2),
        (("--boot", "-9"), 1),
        (("--boot", "nosuch"), 1),
        (("--deployment", ""), 2),
        (("--deployment", "nosuch"), 1),
        (("--machine", "updates"), 2),
        (("--machine", "app-update/x"), 2),
    ],
)
def test_a_filter_that_cannot_be_meant_is_one_line(
    lived: Device, words: tuple[str, ...], code: int
) -> None:
    for command in ("list", "tail", "timeline", "stats", "grep"):
        pattern = ["."] if command == "grep" else []
        said = lived("journal", command, *pattern, *words)
        assert (said.code, said.is_one_line()) == (code, True)


@pytest.mark.parametrize(
    ("typed", "ms"),
    [
        ("2h", NOW_MS - 7_200_000),
        ("1h30m", NOW_MS - 5_400_000),
        ("1.5d", NOW_MS - 129_600_000),
        ("now", NOW_MS),
        ("06:00", NOW_MS - 2_100_000),
        ("2026-11-23", NOW_MS - 23_700_000),
        ("2026-11-23 06:34", NOW_MS - 60_000),
        ("2026-11-23T06:34:00Z", NOW_MS - 60_000),
        ("2026-11-23T07:34:00+01:00", NOW_MS - 60_000),
    ],
)
def test_times_are_absolute_in_utc_or_so_long_ago(typed: str, ms: int) -> None:
    assert parse(typed, NOW_MS) == ms
