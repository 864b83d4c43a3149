"""Device logs where several servers write them: a file each, read as one, kept within the same bounds."""

from __future__ import annotations

import json
import random  # noqa: TID251 - which server has a stream is chance from a seed
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from cloudly import servers, slots
from cloudly.http import logs_page
from cloudly.store import log_files
from cloudly.store.device_logs import DeviceLogs
from cloudly.store.log_chunks import Kept, Line
from cloudly.store.log_file import SET_ASIDE, file_of, open_to_read, slots_of, used_bytes
from cloudly.store.log_files import Following, newest_first, places_of, search, text_of
from cloudly.store.log_reading import Wanted, newest_n, size_of
from cloudly.store.log_rows import LogBounds
from interfaces.world import now_ms
from simulators.world import SimWorld
from tests.cloudly.given import UUID, Plane, code_of
from tests.cloudly.test_command_line import Command
from tests.cloudly.test_logs_page import PATH, node, page, say_now, shown, start
from tests.cloudly.test_page import watch

pytestmark = pytest.mark.anyio

BOUNDS = LogBounds(64 * 1024, 1024 * 1024, 7 * 86_400_000)


class Writers:
    """The servers of one directory, each with its file."""

    def __init__(self, directory: Path, world: SimWorld, bounds: LogBounds = BOUNDS) -> None:
        self.directory = directory
        self.world = world
        self.logs = [DeviceLogs(directory, world, bounds, slot=slot) for slot in range(3)]

    def say(self, slot: int, *texts: str, node_id: str = UUID) -> None:
        now = now_ms(self.world)
        self.logs[slot].add(node_id, [Line(now, now, 1, 0, text) for text in texts])
        while self.logs[slot].write(everything=True):
            pass

    def rest(self) -> None:
        for logs in self.logs:
            logs.rest()


@pytest.fixture
async def writers(plane: Plane) -> Any:
    await node(plane)
    writers = Writers(plane.directory, plane.world)
    yield writers
    writers.rest()


def found(directory: Path, wanted: Wanted | None = None) -> list[Kept]:
    """All lines, newest first."""
    lines: list[Kept] = []
    with search(directory, UUID, wanted or Wanted()) as searched:
        while searched.look() or searched.has_more:
            kept = searched.take()
            if kept is not None:
                lines.append(kept)
        assert searched.problems == {}
    return lines


def damage(file: Path) -> None:
    for suffix in ("-wal", "-shm"):
        file.with_name(file.name + suffix).unlink(missing_ok=True)
    file.write_bytes(b"no database" * 500)


async def test_a_stream_that_moved_between_servers_is_one_story(
    plane: Plane, writers: Writers
) -> None:
    for number, slot in enumerate((0, 1, 0, 2, 1)):
        writers.say(slot, f"line {number}")
        await plane.world.sleep(1)

    html = await page(plane)

    assert shown(html) == ["line 4", "line 3", "line 2", "line 1", "line 0"]
    ids = re.findall(r'<li id="line-([^"]+)"', html)
    assert ids == ["1-2", "2-1", "2", "1-1", "1"]


@pytest.mark.parametrize("seed", range(5))
async def test_older_pages_have_every_line_once_whoever_wrote_it(
    plane: Plane, writers: Writers, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance, said = random.Random(seed), list[str]()  # noqa: S311 - a story's
    monkeypatch.setattr(logs_page, "LINES", 17)
    monkeypatch.setattr(logs_page, "SEARCHED", chance.choice((30, 100_000)))
    for number in range(60):
        texts = [f"{number}/{more} {chance.choice('ab')}" for more in range(chance.randint(1, 5))]
        writers.say(chance.randrange(3), *texts)
        said += texts
        await plane.world.sleep(chance.uniform(0.002, 2))
    wanted = chance.choice(("", "a"))

    seen, query, pages = [], f"?text={wanted}", 0
    while query:
        html = await page(plane, query)
        seen += shown(html)
        older = re.search(r'href="[^"?]*(\?[^"]*before=[^"]*)"', html)
        query = older[1].replace("&amp;", "&") if older else ""
        pages += 1

    assert seen == [text for text in reversed(said) if wanted in text]
    assert 3 < pages < 60


async def test_an_old_page_stays_as_it_was_when_another_server_begins_to_write(
    plane: Plane, writers: Writers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs_page, "LINES", 2)
    writers.say(0, "one", "two", "three", "four")
    html = await page(plane)
    older = re.search(r'href="[^"?]*(\?[^"]*before=[^"]*)"', html)
    assert older is not None
    before = shown(await page(plane, older[1]))

    await plane.world.sleep(1)
    writers.say(1, "five of another")

    assert before == shown(await page(plane, older[1])) == ["two", "one"]
    assert shown(await page(plane)) == ["five of another", "four"]


async def test_a_live_page_shows_what_another_server_wrote(plane: Plane, writers: Writers) -> None:
    writers.logs[0] = plane.app.state.logs
    writers.say(0, "before")

    async def more() -> None:
        writers.say(1, "of another server")
        await plane.world.sleep(2)
        writers.say(0, "of this one")
        writers.say(2, "of a third")

    heard = await watch(plane, PATH + "/live", 5, more)

    events = [shown(one) for one in heard.split("\n\n") if one.startswith("data:")]
    assert events[0] == ["before"]
    assert events[-1][-2:] == ["of another server", "before"]
    assert sorted(events[-1][:-2]) == ["of a third", "of this one"]


async def test_a_live_page_that_is_full_offers_what_is_older_in_every_file(
    plane: Plane, writers: Writers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs_page, "LINES", 5)
    writers.logs[0] = plane.app.state.logs
    writers.say(1, "old 1", "old 2")
    await plane.world.sleep(1)
    writers.say(0, "line 1", "line 2", "line 3")

    async def more() -> None:
        writers.say(0, "line 4", "line 5", "line 6")

    heard = await watch(plane, PATH + "/live", 3, more)

    last = [one for one in heard.split("\n\n") if one.startswith("data:")][-1]
    assert shown(last) == ["line 6", "line 5", "line 4", "line 3", "line 2"]
    older = re.search(r'href="[^"?]*(\?[^"]*before=[^"]*)"', last)
    assert older is not None
    assert shown(await page(plane, older[1])) == ["line 1", "old 2", "old 1"]


async def test_files_that_have_not_changed_are_not_opened_again(
    plane: Plane, writers: Writers, monkeypatch: pytest.MonkeyPatch
) -> None:
    writers.say(0, "one")
    writers.say(1, "two")
    opened: list[int] = []
    really = open_to_read

    def counted(directory: Path, slot: int = 0) -> Any:
        opened.append(slot)
        return really(directory, slot)

    following = Following(plane.directory, UUID).begin()
    monkeypatch.setattr(log_files, "open_to_read", counted)
    for _ in range(10):
        assert following.news() == ([], set())
    quiet = len(opened)
    writers.say(1, "three")
    news, _ = following.news()

    assert [kept.line.text for kept in news] == ["three"]
    assert quiet <= 4  # each file twice, for times of files are coarse
    assert opened[quiet:] == [1]


async def test_a_file_that_was_set_aside_is_followed_from_its_new_beginning(
    plane: Plane, writers: Writers
) -> None:
    writers.say(1, "one", "two", "three")
    writers.say(0, "of the other")
    following = Following(plane.directory, UUID).begin()
    writers.logs[1].rest()
    file_of(plane.directory, 1).unlink()

    writers.say(1, "anew")
    news, anew = following.news()

    assert [kept.line.text for kept in news] == ["anew"]
    assert anew == {1}


async def test_a_damaged_file_of_another_server_hides_nothing_else_and_is_left_alone(
    plane: Plane, writers: Writers
) -> None:
    writers.say(0, "of slot 0")
    writers.say(1, "of slot 1")
    writers.say(2, "of slot 2")
    writers.rest()
    damage(file_of(plane.directory, 1))

    html = await page(plane)

    assert sorted(shown(html)) == ["of slot 0", "of slot 2"]
    assert "logs-1.db) cannot be read now" in html
    assert file_of(plane.directory, 1).read_bytes().startswith(b"no database")
    writers.say(1, "begins anew")
    assert sorted(shown(await page(plane))) == ["begins anew", "of slot 0", "of slot 2"]
    assert (plane.directory / slots.numbered(SET_ASIDE, 1)).exists()


async def test_a_node_whose_stream_moves_has_at_most_twice_its_bound(writers: Writers) -> None:
    def sizes() -> list[int]:
        found = []
        for slot in slots_of(writers.directory):
            db = open_to_read(writers.directory, slot)
            assert db is not None
            found.append(size_of(db, UUID))
            db.close()
        return found

    for slot in (0, 1, 2, 0):
        for _ in range(100):
            writers.say(slot, writers.world.random_bytes(1500).hex())
        assert sum(sizes()) <= 2 * BOUNDS.per_node_bytes
        await writers.world.sleep(60)

    alone, *others = sizes()
    assert alone + sum(others) <= BOUNDS.per_node_bytes * 5 // 3
    assert min(others) > BOUNDS.per_node_bytes // 6
    newest = found(writers.directory)[0]
    assert newest.slot == 0


async def test_a_node_that_stays_at_one_server_has_all_of_its_bound(writers: Writers) -> None:
    writers.say(1, "somebody else's", node_id="n2")
    writers.say(2, "and another's", node_id="n3")

    for _ in range(150):
        writers.say(0, writers.world.random_bytes(1500).hex())

    db = open_to_read(writers.directory, 0)
    assert db is not None
    assert BOUNDS.per_node_bytes * 3 // 4 < size_of(db, UUID) <= BOUNDS.per_node_bytes
    db.close()


async def test_all_files_together_keep_the_bound_of_the_whole(plane: Plane) -> None:
    await node(plane)
    bounds = LogBounds(512 * 1024, 1536 * 1024, BOUNDS.keep_ms)
    writers = Writers(plane.directory, plane.world, bounds)
    for slot in (0, 1, 2):
        writers.say(slot, "begins")
    await plane.world.sleep(60)

    for number in range(180):
        texts = [writers.world.random_bytes(1500).hex() for _ in range(10)]
        writers.say(number % 3, *texts, node_id=f"n{number % 20}")

    used = []
    for slot in (0, 1, 2):
        db = open_to_read(plane.directory, slot)
        assert db is not None
        used.append(used_bytes(db))
        db.close()
    writers.rest()
    assert (
        sum(used) <= bounds.total_bytes + 3 * 64 * 1024
    )  # a write may be over, the next one makes room
    assert min(used) > bounds.total_bytes // 6


async def test_the_file_of_a_server_that_is_gone_is_tidied_and_then_removed(
    plane: Plane, writers: Writers
) -> None:
    writers.say(0, "ours")
    writers.say(1, "old")
    await plane.world.sleep(4 * 86_400)
    writers.say(1, "younger")
    writers.say(2, "of one that runs")
    writers.rest()
    with slots.taken(plane.directory, machine="m", shared=True), slots.if_free(plane.directory, 2):
        await plane.world.sleep(4 * 86_400)
        await writers.logs[0].tidy()
        half = slots_of(plane.directory), [one.line.text for one in found(plane.directory)]
        await plane.world.sleep(4 * 86_400)
        await writers.logs[0].tidy()

    assert half[0] == [0, 1, 2]
    assert "old" not in half[1]
    assert "younger" in half[1]
    assert slots_of(plane.directory) == [0, 2]  # whose server runs keeps its own
    assert not list(plane.directory.glob("logs-1.db*"))


async def test_places_are_read_as_they_are_written_and_nothing_else_is_taken(plane: Plane) -> None:
    await node(plane)
    for places in ({0: 12}, {0: 1, 1: 2, 17: 10**17}, {3: 4}):
        assert places_of(text_of(places)) == places
    for text in ("", "x", "1.2.3", "1.2-", "-1", "1.x", "123.1", "0." + "9" * 19):
        assert places_of(text) is None

    assert code_of(await plane.client.get(PATH + "?before=0.1-x"))[0] == 404
    assert (await plane.client.get(PATH + "?before=0.1-9.9")).status_code == 200


async def test_merging_keeps_the_order_of_each_file_though_a_clock_went_back() -> None:
    def line(slot: int, n: int, at_ms: int) -> Kept:
        return Kept(n, Line(at_ms, None, None, 0, ""), slot)

    lines = [line(0, 1, 100), line(0, 2, 50), line(0, 3, 60), line(1, 1, 55)]

    merged = [(kept.slot, kept.n) for kept in newest_first(lines)]

    assert [n for slot, n in merged if slot == 0] == [3, 2, 1]
    assert len(merged) == 4


@pytest.mark.usefixtures("writers")
async def test_the_command_reads_the_files_of_all_servers(plane: Plane) -> None:
    run = Command(plane.directory)
    say_now(plane, "of the first")
    other = DeviceLogs(plane.directory, plane.world, plane.app.state.logs.bounds, slot=1)
    at_ms = run_now()
    other.add(UUID, [Line(at_ms, at_ms, 1, 0, "of the second")])
    other.rest()

    told = [json.loads(one) for one in run("node", "logs", UUID, "--json").stdout.splitlines()]

    assert [(one["text"], one["slot"], one["n"]) for one in told] == [
        ("of the first", 0, 1), ("of the second", 1, 1),
    ]  # fmt: skip
    damage(file_of(plane.directory, 0))
    damaged = run("node", "logs", UUID, expect=1)
    assert "of the second" in damaged.stdout
    assert "logs.db could not be read" in damaged.stderr


def run_now() -> int:
    from interfaces.world import RealWorld

    return now_ms(RealWorld())


@pytest.mark.slow
@pytest.mark.usefixtures("writers")
async def test_the_command_follows_a_stream_to_another_server(plane: Plane) -> None:
    say_now(plane, "before")
    following = start(plane.directory, "--follow", "-n", "1")
    assert following.stdout is not None
    first = following.stdout.readline()

    other = DeviceLogs(plane.directory, plane.world, plane.app.state.logs.bounds, slot=1)
    other.add(UUID, [Line(run_now(), None, 1, 0, "moved")])
    other.rest()
    second = following.stdout.readline()
    say_now(plane, "back")
    third = following.stdout.readline()
    following.send_signal(signal.SIGINT)
    _, errors = following.communicate(timeout=20)

    words = [line.split()[-1] for line in (first, second, third)]
    assert (words, errors) == (["before", "moved", "back"], "")


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
async def test_the_page_says_where_other_servers_keep_logs(plane: Plane, tmp_path: Path) -> None:
    await node(plane)
    here = await page(plane)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    present = servers.Present(plane.store, plane.world, elsewhere, 0, 7 * 86_400_000)
    await present.beat()
    await plane.app.state.recurring.once("server")

    there = await page(plane)

    assert "directories of their own" not in here
    assert f"not read here: {present.server.host}:{elsewhere}" in there


def test_the_places_of_a_node_are_of_each_file(tmp_path: Path) -> None:
    """What this module's stories count with: `n` begins at 1 in each file."""
    world = SimWorld(7)
    writers = Writers(tmp_path, world)
    writers.say(0, "a", "b")
    writers.say(1, "c")
    for slot, newest in ((0, 2), (1, 1)):
        db = open_to_read(tmp_path, slot)
        assert db is not None
        assert newest_n(db, UUID) == newest
        db.close()
    writers.rest()
