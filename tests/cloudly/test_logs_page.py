"""The page of a node's logs and `cloudly node logs`: what was printed, as text and nothing else."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cloudly.http import logs_page
from cloudly.log_view import harmless, log_view
from cloudly.store.device_logs import DeviceLogs
from cloudly.store.log_chunks import Kept, Line, Mark, gap
from cloudly.store.log_file import FILE
from interfaces.world import RealWorld, now_ms
from tests.cloudly.given import UUID, Plane, code_of
from tests.cloudly.test_command_line import Command
from tests.cloudly.test_page import watch
from tests.signals import hear_signals

pytestmark = pytest.mark.anyio

EVIL = "<script>alert(1)</script>\"'&{{7*7}}<img src=x onerror=alert(1)>"
PATH = f"/nodes/{UUID}/logs"


async def node(plane: Plane) -> None:
    """One that has a service named main."""
    await plane.device().enroll()
    plane.release("1.0.0", UUID)


def say(plane: Plane, *texts: str, service: int | None = 1, marks: Mark = Mark.NONE) -> None:
    at_ms = now_ms(plane.world)
    logs(plane).add(UUID, [Line(at_ms, at_ms, service, marks, text) for text in texts])
    logs(plane).rest()


def logs(plane: Plane) -> DeviceLogs:
    found = plane.app.state.logs
    assert isinstance(found, DeviceLogs)
    return found


async def page(plane: Plane, query: str = "") -> str:
    answer = await plane.client.get(PATH + query)
    assert answer.status_code == 200, answer.text
    return answer.text


def shown(html: str) -> list[str]:
    return re.findall(r'class="text">([^<]*)<', html)


async def test_a_page_without_lines_says_how_they_come(plane: Plane) -> None:
    await node(plane)

    assert "None yet" in await page(plane)
    assert f'href="{PATH}"' in (await plane.client.get(f"/nodes/{UUID}")).text


async def test_lines_are_shown_newest_first_with_who_said_them(plane: Plane) -> None:
    await node(plane)
    say(plane, "first", "second")
    say(plane, "oops", marks=Mark.STDERR)
    say(plane, "Supervisor starting", service=None, marks=Mark.SYSTEM)
    say(plane, "of a service that nobody knows", service=77)
    logs(plane).add(UUID, [gap(now_ms(plane.world), 12, "rate")])
    logs(plane).rest()

    html = await page(plane)

    assert shown(html) == [
        "12 lines were not kept: more came than Cloudly keeps of one device",
        "of a service that nobody knows", "Supervisor starting", "oops", "second", "first",
    ]  # fmt: skip
    assert re.findall(r'class="source">([^<]*)<', html) == [
        "\N{EN DASH}", "service 77", "Supervisor", "main", "main", "main",
    ]  # fmt: skip
    assert 'class="stderr"' in html
    assert 'class="gap"' in html


async def test_a_devices_clock_that_is_wrong_is_shown_beside_ours(plane: Plane) -> None:
    await node(plane)
    logs(plane).add(UUID, [Line(now_ms(plane.world), 1000, 1, 0, "in 1970")])
    logs(plane).rest()

    html = await page(plane)

    assert "1970-01-01 00:00:01" in html
    assert "received <time" in html


async def test_filters_leave_what_is_asked_for_and_what_is_missing(plane: Plane) -> None:
    await node(plane)
    say(plane, "old apples")
    await plane.world.sleep(7200)
    say(plane, "apples", "Pears & <plums>")
    say(plane, "system apples", service=None, marks=Mark.SYSTEM)

    plums = "Pears &amp; &lt;plums&gt;"
    assert shown(await page(plane, "?service=main")) == [plums, "apples", "old apples"]
    assert shown(await page(plane, "?system=1")) == ["system apples"]
    assert shown(await page(plane, "?text=APPLES&since=1h")) == ["system apples", "apples"]
    assert shown(await page(plane, "?text=%26%20%3Cplums")) == [plums]
    assert shown(await page(plane, "?service=nobody")) == []
    assert "No such lines" in await page(plane, "?text=cherries")


async def test_the_policy_lets_the_page_ask_for_its_own_filters(plane: Plane) -> None:
    await node(plane)

    answer = await plane.client.get(PATH)

    assert f'<form class="filters" method="get" action="{PATH}">' in answer.text
    assert "form-action 'self'" in answer.headers["content-security-policy"]


async def test_older_lines_are_on_older_pages_and_none_is_left_out(plane: Plane) -> None:
    await node(plane)
    for n in range(0, logs_page.LINES * 2 + 50, 30):
        say(plane, *(f"line {n + more}" for more in range(30)))

    seen, query = [], "?service=main"
    while query is not None:
        html = await page(plane, query)
        seen += shown(html)
        found = re.search(r'href="[^"?]*(\?[^"]*before=[^"]*)"', html)
        query = found[1].replace("&amp;", "&") if found else None  # type: ignore[assignment]
        assert query is None or "service=main" in query

    assert seen == [f"line {n}" for n in reversed(range(logs_page.LINES * 2 + 50))]


async def test_a_long_search_stops_and_offers_to_go_on(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs_page, "SEARCHED", 100)
    await node(plane)
    say(plane, "the needle")
    for _ in range(3):
        say(plane, *("hay " * 20 for _ in range(100)))

    html = await page(plane, "?text=needle")
    rounds = 1
    while "Search on among older lines" in html:
        found = re.search(r'href="[^"?]*(\?[^"]*before=[^"]*)"', html)
        assert found is not None
        html, rounds = await page(plane, found[1].replace("&amp;", "&")), rounds + 1

    assert shown(html) == ["the needle"]
    assert rounds > 2


async def test_every_text_of_a_device_is_text(plane: Plane) -> None:
    await node(plane)
    say(plane, EVIL, "\x1b[31mred\x1b[0m \x1b]0;title\x07bell\x07", "\u202eabc\u202c", "x" * 10_000)

    html = await page(plane)
    answer = await plane.client.get(PATH, params={"text": EVIL, "service": EVIL})

    assert "alert(1)" in html
    for text in (html, answer.text):
        assert "<script>alert" not in text
        assert "<img" not in text
        assert EVIL not in text
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)
    assert "red �" not in html
    assert "red bell�" in html
    assert "�abc�" in html
    assert not re.search(r"<[^>]*\s(on\w+|style)=", html)


@pytest.mark.parametrize(
    "query", ["?before=x", "?before=-1", "?since=yesterday", "?since=0h", "?before=" + "9" * 40]
)
async def test_an_address_that_makes_no_sense_is_refused(plane: Plane, query: str) -> None:
    await node(plane)

    for path in (PATH, PATH + "/live"):
        assert code_of(await plane.client.get(path + query)) == (404, "not-found")


async def test_a_node_that_there_is_not_and_a_stranger_see_nothing(plane: Plane) -> None:
    await node(plane)

    assert code_of(await plane.client.get("/nodes/nobody/logs")) == (404, "not-found")
    for path in (PATH, PATH + "/live"):
        answer = await plane.client.get(path, headers={"host": "evil.example"})
        assert answer.status_code == 421


async def test_new_lines_appear_by_themselves_and_only_those_that_are_asked_for(
    plane: Plane,
) -> None:
    await node(plane)
    say(plane, "before")

    async def more() -> None:
        say(plane, "after", "not this one")
        await plane.world.sleep(2)
        say(plane, "after that")

    heard = await watch(plane, PATH + "/live?text=after", 5, more)

    events = [one for one in heard.split("\n\n") if one.startswith("data:")]
    assert shown(events[0]) == []
    assert shown(events[1]) == ["after"]
    assert shown(events[2]) == ["after that", "after"]
    assert len(events) == 3


async def test_a_live_page_never_grows(plane: Plane) -> None:
    await node(plane)
    say(plane, *(f"line {n}" for n in range(logs_page.LINES + 10)))

    async def more() -> None:
        say(plane, *(f"more {n}" for n in range(50)))

    heard = await watch(plane, PATH + "/live", 3, more)

    last = [one for one in heard.split("\n\n") if one.startswith("data:")][-1]
    lines = shown(last)
    assert len(lines) == logs_page.LINES
    assert (lines[0], lines[49], lines[50]) == ("more 49", "more 0", "line 209")
    assert "Older lines" in last


async def test_a_damaged_file_is_said_on_the_page_and_set_aside(plane: Plane) -> None:
    await node(plane)
    say(plane, *(plane.world.random_bytes(3000).hex() for _ in range(50)))
    whole = (plane.directory / FILE).read_bytes()
    (plane.directory / FILE).write_bytes(whole[:8192] + b"\xa5" * (len(whole) - 8192))

    html = await page(plane)
    say(plane, "after it")

    assert "damaged" in html
    assert shown(await page(plane)) == ["after it"]


def test_text_is_harmless_and_otherwise_as_it_was() -> None:
    assert harmless("plain äöü \N{GRINNING FACE}") == "plain äöü \N{GRINNING FACE}"
    assert harmless("a\tb\nc") == "a\tb\nc"
    assert harmless("\x1b[1;31mred\x1b[0m") == "red"
    assert harmless("\x1b]8;;http://x\x1b\\link\x1b]8;;\x07") == "link"
    assert harmless("\x1b[999999") == "999999"
    assert harmless("a\rb\x00\x9b31m") == "a�b��31m"


def test_a_view_says_who_when_and_what_is_missing() -> None:
    unknown = log_view(Kept(1, Line(9000, None, None, Mark.ODD, "x")), {})
    cut = log_view(Kept(2, gap(9000, 1, "damaged")), {})
    newer = log_view(Kept(3, gap(9000, 0, "a reason of a newer Cloudly")), {})

    assert (unknown.at_ms, unknown.source, unknown.kind, unknown.apart) == (9000, "", "odd", False)
    assert cut.text == "1 line cannot be read any more: Cloudly's file of logs is damaged there"
    assert newer.text == "lines are missing here"


# -- the command


async def test_the_command_shows_lines_oldest_first(plane: Plane) -> None:
    await node(plane)
    say_now(plane, "first", "second \x1b[31m\u202e")
    say_now(plane, "oops", marks=Mark.STDERR)
    run = Command(plane.directory)

    lines = run("node", "logs", UUID[:8]).stdout.splitlines()

    assert [line.split("main")[1].strip() for line in lines] == ["first", "second �", "! oops"]
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}  main ", lines[0])


def say_now(plane: Plane, *texts: str, **changes: Any) -> None:
    """As `say`, by the clock that the command has."""
    plane.world.jump(RealWorld().now() - plane.world.now())
    say(plane, *texts, **changes)


async def test_the_command_filters_counts_and_speaks_json(plane: Plane) -> None:
    await node(plane)
    say_now(plane, *(f"line {n}" for n in range(150)))
    say_now(plane, "Supervisor starting", service=None, marks=Mark.SYSTEM)
    run = Command(plane.directory)

    assert len(run("node", "logs", UUID).stdout.splitlines()) == 100
    assert len(run("node", "logs", UUID, "-n", "0").stdout.splitlines()) == 151
    assert len(run("node", "logs", UUID, "-n", "3").stdout.splitlines()) == 3
    assert "starting" in run("node", "logs", UUID, "--system").stdout
    assert run("node", "logs", UUID, "--grep", "LINE 7").stdout.count("\n") == 11
    narrow = ("--since", "1h", "--service", "main", "--grep", "line 149")
    assert run("node", "logs", UUID, *narrow).stdout.count("\n") == 1
    printed = run("node", "logs", UUID, "--json", "-n", "2").stdout
    as_json = [json.loads(line) for line in printed.splitlines()]
    assert [(one["n"], one["source"], one["marks"], one["text"]) for one in as_json] == [
        (150, "main", [], "line 149"), (151, "Supervisor", ["system"], "Supervisor starting"),
    ]  # fmt: skip


async def test_the_command_says_what_it_does_not_find(plane: Plane) -> None:
    await node(plane)
    run = Command(plane.directory)

    assert "no such lines" in run("node", "logs", UUID).stdout
    assert run("node", "logs", UUID, "--json").stdout == ""
    assert "known are main" in run("node", "logs", UUID, "--service", "x", expect=1).stderr
    (plane.directory / FILE).write_bytes(b"no database" * 500)
    assert "could not be read" in run("node", "logs", UUID, expect=1).stderr


@pytest.mark.slow
async def test_the_command_follows_until_it_is_interrupted(plane: Plane) -> None:
    await node(plane)
    say_now(plane, "before")
    following = start(plane.directory, "--follow", "-n", "1")
    assert following.stdout is not None
    first = following.stdout.readline()

    say_now(plane, "after")
    second = following.stdout.readline()
    following.send_signal(signal.SIGINT)
    try:
        rest, errors = following.communicate(timeout=20)
    finally:
        following.kill()  # left behind, it would turn another test red

    assert (first.split()[-1], second.split()[-1]) == ("before", "after")
    assert (following.returncode, rest, errors) == (130, "", "")


@pytest.mark.slow
async def test_a_reader_that_has_seen_enough_is_no_error(plane: Plane) -> None:
    await node(plane)
    say_now(plane, *("x" * 1000 for _ in range(1000)))
    command = start(plane.directory, "-n", "0")
    assert command.stdout is not None
    command.stdout.readline()
    command.stdout.close()
    assert command.stderr is not None

    assert command.wait(timeout=20) == 0
    assert command.stderr.read() == ""
    command.stderr.close()


def start(directory: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "cloudly", "node", "logs", UUID, *words],
        env=Command(directory)._env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=hear_signals,  # noqa: PLW1509 - it takes no lock that a thread may hold
    )  # fmt: skip
