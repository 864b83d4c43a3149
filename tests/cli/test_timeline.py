"""`journal timeline`: lanes in a terminal, in an SVG and on a page that can be attached to a ticket."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.cli.given import Device

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = '"><script>alert(1)</script>&\x1b[31m\u202e</title></text>'


@pytest.fixture
def eventful(lived: Device) -> Device:
    """A reboot, a jump of the clock, a failed update, and a version that would like to be markup."""
    lived.reboot("boot-2")
    with lived.writing() as tell:
        tell("heartbeat/2", "run-ended", how="interrupted")
        tell("heartbeat/3", "run-started", agent_version="0.1.0")
        tell("app-update/3", "offered", deployment="d3", generation=3, release="c3",
             version=HOSTILE, images=[], policy={})  # fmt: skip
        tell("app-update/3", "admitted", running=None)
        tell("app-update/3", "download-requested")
        lived.wall_ms += 50_000
        tell("app-update/3", "download-failed", reason=HOSTILE)
    return lived


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [str(value) for name, value in attrs if name in {"href", "src"}]


def drawn(device: Device, tmp_path: Path) -> tuple[str, str]:
    svg, html = tmp_path / "t.svg", tmp_path / "t.html"
    said = device("journal", "timeline", "--svg", str(svg), "--html", str(html))
    assert said.code == 0
    return svg.read_text(encoding="utf-8"), html.read_text(encoding="utf-8")


def test_every_transition_of_an_update_can_be_pointed_at(eventful: Device, tmp_path: Path) -> None:
    svg, _ = drawn(eventful, tmp_path)

    titles = [title.text or "" for title in ET.fromstring(svg).iter(f"{SVG}title")]  # noqa: S314 - ours

    for kind in ("offered", "staged", "apply-requested", "applied", "health-passed"):
        assert any(title.split("\n")[-1].startswith(f"{kind}:") for title in titles)
    assert any("the host booted again" in title for title in titles)
    assert any("the clock jumped by 50.0 s" in title for title in titles)
    assert any(title.startswith("nothing was written for 1 m 0") for title in titles)
    assert sum("the agent started" in title for title in titles) >= 3


def test_what_a_fact_says_becomes_no_markup(eventful: Device, tmp_path: Path) -> None:
    svg, html = drawn(eventful, tmp_path)

    known = {"svg", "style", "rect", "text", "title", "line", "path"}
    assert {el.tag.removeprefix(SVG) for el in ET.fromstring(svg).iter()} <= known  # noqa: S314 - ours
    page = Reader()
    page.feed(html)
    assert "script" not in page.tags
    for text in (svg, html):
        assert "alert(1)" in text  # it is there, as text
        assert "<script" not in text
        assert "\x1b" not in text
        assert "\u202e" not in text


def test_page_and_picture_stand_alone_in_daylight_and_in_the_dark(
    eventful: Device, tmp_path: Path
) -> None:
    svg, html = drawn(eventful, tmp_path)

    page = Reader()
    page.feed(html)
    assert page.links == []
    for text in (svg, html):
        assert "prefers-color-scheme:dark" in text
        assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg)", text)


def test_in_a_terminal_each_machine_is_a_lane_and_each_letter_is_explained(
    eventful: Device,
) -> None:
    said = eventful("journal", "timeline")

    lanes = {line.split()[0]: line for line in said.out.splitlines() if line.strip()}
    assert {"device", "enrollment", "heartbeat", "app-update"} <= set(lanes)
    assert "#" in lanes["device"]
    assert lanes["app-update"].rstrip().endswith("F")
    for words in ("F failed", "S succeeded", "# host booted again", "~ clock jumped"):
        assert words in said.out
    assert "\x1b" not in said.out


def test_time_never_runs_backwards_on_the_axis(eventful: Device) -> None:
    eventful.reboot("boot-3", clock_ms=30_000)  # 1970
    with eventful.writing() as tell:
        tell("heartbeat/3", "run-ended", how="interrupted")
        tell("heartbeat/4", "run-started", agent_version="0.1.0")

    told = eventful("journal", "timeline", "--json").lines

    begins = [each.get("from_ms", each.get("at_ms")) for each in told]
    assert begins == sorted(begins)
    assert begins[0] > 1_790_000_000_000
    assert all(
        each["to_ms"] is None or each["to_ms"] >= each["from_ms"]
        for each in told
        if "state" in each
    )


def test_a_drawing_never_replaces_a_file(lived: Device, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("mine")

    said = lived("journal", "timeline", "--svg", str(tmp_path / "there"))

    assert (said.code, said.is_one_line()) == (2, True)
    assert (tmp_path / "there").read_text() == "mine"
    nowhere = lived("journal", "timeline", "--html", str(tmp_path / "no" / "folder"))
    assert (nowhere.code, nowhere.is_one_line()) == (1, True)


def test_nothing_to_draw_is_one_line(device: Device) -> None:
    with device.writing():
        pass

    said = device("journal", "timeline")

    assert (said.code, said.is_one_line()) == (1, True)


def test_on_a_narrow_terminal_no_line_is_wider(eventful: Device) -> None:
    from baserunner.cli import show
    from baserunner.cli.clock import Clock
    from baserunner.cli.lanes import draft
    from baserunner.cli.lanes_terminal import drawing
    from journal.boots import Sought

    with show.reader(eventful.home) as survey:
        chart = draft(survey.each(Sought()), Clock(survey))
    lines = [line.plain.rstrip() for line in drawing(chart, 50, unicode=False)]

    assert all(line.isascii() for line in lines)
    assert max(len(line) for line in lines[2:-1]) <= 50
