"""A node's story: every fact in order, gaps where they are, epochs as chapters, on the page and for the operator."""

from __future__ import annotations

import html
import json
import re
from typing import Any

import pytest
from typer.testing import CliRunner

from cloudly.cli import app as command
from cloudly.gaps import WORDS
from cloudly.store import story
from cloudly.store.journals import KEPT_TRANSITIONS
from cloudly.story import Chapter, gap_words
from interfaces.world import now_ms
from journal.chain import link
from tests.cloudly.given import UUID, Device, Plane, code_of
from tests.cloudly.test_page import EVIL, page

pytestmark = [pytest.mark.anyio, pytest.mark.both_engines]
YEAR_MS = 365 * 86_400_000


@pytest.fixture
async def device(plane: Plane) -> Device:
    return await plane.device().enroll()


def chapters(plane: Plane, *, heartbeats: bool = False, limit: int = 1000) -> list[Chapter]:
    """The whole story, the oldest chapter first."""
    found = plane.store.read_now(
        lambda db: story.page(db, 1, before=None, limit=limit, heartbeats=heartbeats)
    )
    return list(found.chapters[::-1])


def told(chapter: Chapter) -> list[str]:
    """One word per line and mark, in order."""
    words: list[str] = []
    for line in chapter.lines:
        words += [mark.what if mark.what != "gap" else gap_words(mark) for mark in line.before]  # type: ignore[arg-type]
        words.append(f"{line.lane} {line.seq}")
    return words + [gap_words(gap) for gap in chapter.lost]


def stamped(device: Device, event: dict[str, Any], **changes: Any) -> None:
    """The newest fact of its lane, with another stamp."""
    event |= changes
    fields = {name: value for name, value in event.items() if name != "hash"}
    event["hash"] = link(device.hash_at("core", event["seq"] - 1), lane="core", **fields).hex()


async def test_both_lanes_are_one_story_in_the_order_in_which_it_happened(
    plane: Plane, device: Device
) -> None:
    for number in range(3):
        device.fact("app-update/1", f"s{number}", f"s{number + 1}")
        device.fact("app-update/1", "", "", lane="log", percent=number)

    await device.ship(device.batch(lane="log"))
    await device.ship()

    assert told(chapters(plane)[0]) == ["core 1", "log 1", "core 2", "log 2", "core 3", "log 3"]


async def test_a_gap_stands_where_facts_are_missing(plane: Plane, device: Device) -> None:
    for number in range(8):
        device.fact("app-update/1", f"s{number}", f"s{number + 1}")
    await device.ship(device.batch(1, 2))
    gap = {"first_seq": 3, "last_seq": 5, "why": "space", "kinds": {"s3-happened": 3}}
    await device.ship(device.batch(7), oldest=7, gaps=[gap])
    device.fact("app-update/1", "s8", "s9")
    await device.beat()

    await plane.device(epoch="epoch-2").enroll()

    assert told(chapters(plane)[0]) == [
        "core 1",
        "core 2",
        f"3 facts missing in the core lane (3 to 5): {WORDS['space']}; 3 s3-happened",
        "1 fact missing in the core lane (6): nobody knows why",
        "core 7",
        "core 8",
        "1 fact missing in the core lane (9): lost with the device's disk, or with the end of its journal",
    ]


async def test_epochs_are_chapters_with_their_reason_and_copies_are_marked(
    plane: Plane, device: Device
) -> None:
    for number in range(4):
        device.fact("app-update/1", f"s{number}", f"s{number + 1}")
    await device.ship()
    note = {
        "why": "salvaged",
        "from": "epoch-1",
        "problem": "page 7 is zeros",
        "carried": {"core": 2},
    }
    device.begins("epoch-2", **note)
    device.fact("app-update/1", "s3", "s4")
    device.fact("app-update/1", "s4", "s5")
    await device.ship()

    first, second = chapters(plane)

    assert (first.n, first.words) == (1, "the node's first journal")
    assert first.closed_at_ms is not None
    assert "damaged; what could be read was carried over" in second.words
    assert (second.problem, second.predecessor) == ("page 7 is zeros", "epoch-1")
    assert [line.carried for line in second.lines] == [False, True, False]


async def test_a_reboot_and_a_jump_of_the_clock_are_marked(plane: Plane, device: Device) -> None:
    stamped(device, device.fact("a/1", "s0", "s1"), at_ms=5_000, mono_ms=1000, boot_id="one")
    stamped(device, device.fact("a/1", "s1", "s2"), at_ms=6_000, mono_ms=2000, boot_id="one")
    stamped(device, device.fact("a/1", "s2", "s3"), at_ms=50 * YEAR_MS, mono_ms=3000, boot_id="one")
    stamped(device, device.fact("a/1", "s3", "s4"), at_ms=8_000, mono_ms=10, boot_id="two")

    await device.ship()

    assert told(chapters(plane)[0]) == [
        "core 1", "core 2", "jump", "core 3", "reboot", "core 4",
    ]  # fmt: skip
    mark = chapters(plane)[0].lines[2].before[0]
    assert mark.words == "the device's clock was set forward by 49 y 364 d"


async def test_the_time_is_the_devices_with_its_error_taken_out_or_it_is_marked(
    plane: Plane, device: Device
) -> None:
    now = now_ms(plane.world)
    stamped(device, device.fact("a/1", "s0", "s1"), at_ms=7000, mono_ms=1000, boot_id="one")
    stamped(
        device, device.fact("a/1", "s1", "s2"),
        at_ms=8000, mono_ms=2000, boot_id="one", skew_ms=now - 8000,
    )  # fmt: skip
    stamped(device, device.fact("a/1", "s2", "s3"), at_ms=now - 5000, mono_ms=1, boot_id="two")
    stamped(device, device.fact("a/1", "s3", "s4"), at_ms=60_000, mono_ms=1, boot_id="three")

    await device.ship()
    shown = [(line.when_ms - now, line.clock) for line in chapters(plane)[0].lines]

    assert shown == [
        (-1000, ""),  # the same boot knew it later
        (0, ""),
        (-5000, "by the device's own clock"),
        (60_000 - now, "the device's clock was wrong"),
    ]


async def test_a_boot_in_1970_changes_the_order_of_nothing(plane: Plane, device: Device) -> None:
    for number, at_ms in enumerate((9_000_000, 5, 10**12, -3, 2**62, 0)):
        stamped(device, device.fact("a/1", f"s{number}", f"s{number + 1}"), at_ms=at_ms)

    await device.ship()

    assert [line.seq for line in chapters(plane)[0].lines] == [1, 2, 3, 4, 5, 6]
    assert (await plane.client.get(f"/nodes/{UUID}")).status_code == 200


async def test_every_fact_can_be_reached_page_by_page_also_where_projections_forgot_it(
    plane: Plane, device: Device
) -> None:
    many = KEPT_TRANSITIONS + 170
    for number in range(many):
        device.fact("app-update/1", "a", f"b{number}", reason=f"fact-number-{number}.")
        if number % 3 == 0:
            device.fact("heartbeat/1", "a", "b", lane="log")
    for first in range(1, many, 100):
        await device.ship(device.batch(first, first + 99))
    await device.ship(device.batch(lane="log"))
    device.begins("epoch-2", why="forked", **{"from": "epoch-1"})
    await device.ship()

    seen: list[str] = []
    address: str | None = f"/nodes/{UUID}"
    pages = 0
    while address:
        text = await page(plane, address)
        seen += re.findall(r"fact-number-(\d+)\.", text)
        older = re.search(r'<a href="([^"]*)">Older facts</a>', text)
        address = f"/nodes/{UUID}{html.unescape(older[1])}" if older else None
        pages += 1
        assert pages < 20

    assert [int(number) for number in seen] == list(range(many))[::-1]


async def test_heartbeats_are_left_out_unless_they_are_asked_for(
    plane: Plane, device: Device
) -> None:
    for _ in range(3):
        device.fact("heartbeat/1", "resting", "sending", lane="log")
    device.fact("app-update/1", "new", "offered")
    await device.ship(device.batch(lane="log"))
    await device.ship()

    without, all_of_it = (
        await page(plane, f"/nodes/{UUID}"),
        await page(plane, f"/nodes/{UUID}?heartbeats=1"),
    )

    assert "heartbeat/1" not in without.split('id="story"')[1].split("<h2>")[0]
    assert all_of_it.count("heartbeat/1") == 3


async def test_a_heartbeat_among_other_facts_of_a_batch_is_left_out_too(
    plane: Plane, device: Device
) -> None:
    device.fact("heartbeat/1", "resting", "sending", lane="log", kind="heartbeat-sent")
    device.fact("app-update/1", "", "", lane="log", kind="lines")
    device.fact("heartbeat/1", "resting", "sending", lane="log", kind="heartbeat-sent")
    await device.ship(device.batch(lane="log"))

    def kinds(*, heartbeats: bool) -> list[str]:
        (one,) = chapters(plane, heartbeats=heartbeats)
        return [line.kind for line in one.lines]

    assert kinds(heartbeats=False) == ["lines"]
    assert kinds(heartbeats=True) == ["heartbeat-sent", "lines", "heartbeat-sent"]


@pytest.mark.parametrize(
    "before",
    ["", "1", "x.y", "1.-2", "9" * 30 + ".1", "1." + "9" * 30, "1.2.3", "<script>", "1.2 "],
)
async def test_an_address_that_is_none_of_ours_is_not_found(
    plane: Plane, device: Device, before: str
) -> None:
    answer = await plane.client.get(f"/nodes/{UUID}", params={"before": before})

    assert code_of(answer) == (404, "not-found")
    assert device.token


async def test_a_failure_log_is_shown_under_its_attempt_collapsed_and_escaped(
    plane: Plane, device: Device
) -> None:
    device.fact("app-update/7", "applying", "failed", reason="the apply failed")
    lines = [f"line {number} {EVIL}" for number in range(300)]
    data = {"source": "supervisor", "lines": lines, "omitted": 7, "why": "cut for its size"}
    device.fact("app-update/7", "", "", lane="log", kind="lines", **data)
    await device.ship()
    await device.ship(device.batch(lane="log"))

    text = await page(plane, f"/nodes/{UUID}")

    assert "200 lines of the supervisor's log, 107 left out" in html.unescape(text)
    assert "<details><summary>200 lines" in text
    assert "line 299" in text
    assert "line 99 " not in text  # bounded: the newest
    assert "<script>alert" not in text


@pytest.mark.parametrize(
    "data",
    [
        {"lines": "all"},
        {"lines": [{"a": [1]}, None, 7], "omitted": "many", "source": ["x"]},
        {"lines": [], "omitted": 2**70},
        {"lines": ["x" * 60_000], "omitted": -5, "source": None},
        {},
    ],
)
async def test_strange_lines_do_no_harm(plane: Plane, device: Device, data: dict[str, Any]) -> None:
    device.fact("app-update/7", "", "", lane="log", kind="lines", **data)
    assert (await device.ship(device.batch(lane="log"))).status_code == 200

    assert (await plane.client.get(f"/nodes/{UUID}")).status_code == 200


async def test_the_page_says_that_two_devices_speak_as_one_node_and_what_to_do(
    plane: Plane, device: Device
) -> None:
    device.writer = "a"
    await device.beat()
    await device.copy("b").beat(reported={"boot_id": "boot-of-b", "addresses": ["10.0.0.9"]})
    await device.beat(reported={"addresses": ["10.0.0.5"]})
    once = await page(plane, f"/nodes/{UUID}")
    await device.beat(reported={"addresses": ["10.0.0.5"]})
    twice = await page(plane, f"/nodes/{UUID}")

    assert "needs-operator" not in once
    assert "a late packet, or a second device" in once
    assert "needs-operator" in twice
    for words in (
        "fresh join token",
        "refused 2 times",
        "10.0.0.5",
        "10.0.0.9",
        "cloudly node acknowledge",
    ):
        assert words in twice
    assert "two devices speak as this node" in await page(plane)


async def test_the_operator_reads_the_same_story_in_the_terminal(
    plane: Plane, device: Device
) -> None:
    for number in range(6):
        device.fact("app-update/1", f"s{number}", f"s{number + 1}", reason=f"because {number}")
    device.fact(
        "app-update/1", "", "", lane="log", kind="lines", source="host", lines=["a\x1b[31m", "b"]
    )
    gap = {"first_seq": 1, "last_seq": 2, "why": "age"}
    await device.ship(device.batch(3), oldest=3, gaps=[gap])
    await device.ship(device.batch(lane="log"))
    device.begins("epoch-2", why="tail-lost", problem="behind", **{"from": "epoch-1"})
    device.fact("enrollment/1", "new", "ready")
    await device.ship()

    def run(*words: str) -> str:
        done = CliRunner().invoke(command, ["node", *words, "--data-dir", str(plane.directory)])
        assert done.exit_code == 0, done.output
        return done.output

    text = run("journal", UUID)
    assert text.index("epoch 1 (epoch-1)") < text.index("2 facts missing in the core lane (1 to 2)")
    assert text.index("(1 to 2)") < text.index("because 2") < text.index("because 5")
    assert text.index("because 5") < text.index(
        "epoch 2 (epoch-2): the end of the journal was lost"
    )
    assert "2 lines of the host's log" in text
    assert "\x1b" not in text
    assert "because 4" not in run("journal", UUID, "-n", "2")
    assert "because 5" not in run("journal", UUID, "--epoch", "2")
    assert "because 5" not in run("journal", UUID, "--stream", "enrollment")
    assert "because 5" not in run("journal", UUID, "--until", "1980-01-01")
    assert "because 5" in run("journal", UUID, "--since", "1980-01-01", "--epoch", "epoch-1")
    found = json.loads(run("journal", UUID, "--json"))
    assert [len(one["lines"]) for one in found] == [5, 2]
    assert "dropped on the device for their age" in run("gaps", UUID)
    assert json.loads(run("gaps", UUID, "--json"))[0]["why"] == "age"


async def test_what_cloudly_has_can_be_carried_away_and_is_checked_against_its_hashes(
    plane: Plane, device: Device
) -> None:
    for number in range(6):
        device.fact("app-update/1", f"s{number}", f"s{number + 1}")
    await device.ship(device.batch(1, 2))
    await device.ship(
        device.batch(5), oldest=5, gaps=[{"first_seq": 3, "last_seq": 4, "why": "age"}]
    )

    def run(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(command, ["node", *words, "--data-dir", str(plane.directory)])
        return done.exit_code, done.output

    code, exported = run("export-journal", UUID)
    lines = [json.loads(line) for line in exported.splitlines()]
    assert code == 0
    assert [line["fact"]["seq"] if "fact" in line else next(iter(line)) for line in lines] == [
        "format", "epoch", 1, 2, "gap", 5, 6,
    ]  # fmt: skip
    assert run("verify-journal", UUID)[0] == 0
    plane.store.write_now(
        lambda db: (
            db.execute(
                "UPDATE journal_chunk SET events=replace(events, 's5', 'sX') WHERE first_seq=5"
            ).rowcount
        )
    )

    code, said = run("verify-journal", UUID)

    assert code == 1
    assert "the hash of 5 does not follow from its content" in said


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM journal_chunk WHERE first_seq=3",
        "DELETE FROM lane_gap",
        "UPDATE lane_gap SET last_hash=?",
        "UPDATE lane SET ack_hash=?",
        "UPDATE lane SET ack_seq=9",
    ],
)
async def test_damage_of_what_cloudly_has_is_noticed(
    plane: Plane, device: Device, damage: str
) -> None:
    for number in range(8):
        device.fact("app-update/1", f"s{number}", f"s{number + 1}")
    await device.ship(device.batch(1, 2))
    await device.ship(device.batch(3, 4))
    await device.ship(device.batch(7), oldest=7)

    def verify() -> int:
        arguments = ["node", "verify-journal", UUID, "--data-dir", str(plane.directory)]
        return CliRunner().invoke(command, arguments).exit_code

    assert verify() == 0
    values = (b"\0",) * damage.count("?")
    plane.store.write_now(lambda db: db.execute(damage, values).rowcount)
    assert verify() == 1
