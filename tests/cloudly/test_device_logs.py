"""The file of device logs: written in batches, bounded, and never worth Cloudly's life."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import anyio
import pytest

from cloudly.store import log_reading
from cloudly.store.device_logs import DeviceLogs
from cloudly.store.log_chunks import Line, Mark
from cloudly.store.log_file import FILE, SET_ASIDE, open_to_read, used_bytes
from cloudly.store.log_reading import Wanted
from cloudly.store.log_rows import LogBounds
from interfaces.world import now_ms
from simulators.world import SimWorld, run_virtual
from tests.cloudly.given import Plane
from tests.cloudly.streaming import Stream, kept, places, register, said, texts

DAY_MS = 86_400_000


class Keeper:
    """Device logs under a clock of their own."""

    def __init__(self, directory: Path, bounds: LogBounds) -> None:
        self.world = SimWorld(7)
        self.directory = directory
        self.logs = DeviceLogs(directory, self.world, bounds)

    def say(self, text: str, node_id: str = "n1", *, times: int = 1) -> None:
        line = Line(now_ms(self.world), None, 501, 0, text)
        self.logs.add(node_id, [line] * times)

    def write(self) -> None:
        while self.logs.write(everything=True):
            pass

    def question(self, sql: str) -> list[tuple[int, ...]]:
        db = open_to_read(self.directory)
        assert db is not None
        found = db.execute(sql).fetchall()
        db.close()
        return found

    def file_bytes(self) -> int:
        db = open_to_read(self.directory)
        assert db is not None
        used = used_bytes(db)
        db.close()
        return used


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[Keeper]:
    keepers = []

    async def begin() -> None:
        keepers.append(Keeper(tmp_path, LogBounds(64 * 1024, 512 * 1024, 7 * DAY_MS)))

    run_virtual(begin)
    yield keepers[0]
    keepers[0].logs.rest()


pytestmark = pytest.mark.anyio


async def test_lines_of_a_second_are_one_row(keeper: Keeper) -> None:
    for n in range(10):
        keeper.say(f"line {n}")
        keeper.logs.write()
    before = (keeper.directory / FILE).exists()
    await keeper.world.sleep(1)
    keeper.logs.write()

    assert not before
    assert keeper.question("SELECT count(*), sum(lines) FROM log_chunk") == [(1, 10)]


async def test_much_at_once_is_written_at_once(keeper: Keeper) -> None:
    keeper.say("x" * 1000, times=40)

    keeper.logs.write()

    assert len(kept(keeper.directory, "n1")) == 40


async def test_many_small_rows_become_one_and_no_line_is_lost_or_moved(keeper: Keeper) -> None:
    for n in range(200):
        keeper.say(f"line {n}")
        keeper.write()

    found = places(keeper.directory, "n1")
    ((rows,),) = keeper.question("SELECT count(*) FROM log_chunk")
    ((size, told),) = keeper.question("SELECT (SELECT sum(size) FROM log_chunk), size FROM source")
    assert [(one.n, one.line.text) for one in found] == [(n + 1, f"line {n}") for n in range(200)]
    assert rows < 45
    assert size == told


async def test_a_restart_goes_on_with_small_rows_and_places(keeper: Keeper) -> None:
    for n in range(40):
        keeper.say(f"line {n}")
        keeper.write()
        if n % 7 == 0:
            keeper.logs.rest()
            keeper.logs = DeviceLogs(keeper.directory, keeper.world, keeper.logs.bounds)

    found = places(keeper.directory, "n1")
    assert [(one.n, one.line.text) for one in found] == [(n + 1, f"line {n}") for n in range(40)]


async def test_a_node_has_no_more_than_its_share_and_keeps_its_newest(keeper: Keeper) -> None:
    keeper.say("of another node", "n2")
    for n in range(300):
        keeper.say(f"{n} " + keeper.world.random_bytes(1500).hex())
        keeper.write()

    ((size,),) = keeper.question("SELECT sum(size) FROM log_chunk WHERE source=2")
    found = places(keeper.directory, "n1")
    assert size <= 64 * 1024
    assert size > 32 * 1024
    assert found[-1].line.text.startswith("299 ")
    assert [one.n for one in found] == list(range(found[0].n, 301))
    assert texts(keeper.directory, "n2") == ["of another node"]


async def test_all_nodes_together_have_no_more_than_is_allowed_and_the_disk_gets_it_back(
    keeper: Keeper,
) -> None:
    sizes = []
    for n in range(60):
        for node in range(10):
            text = f"{n} " + keeper.world.random_bytes(1500).hex()
            keeper.say(text, f"n{n % 6}-{node}")
        keeper.write()
        sizes.append(keeper.file_bytes())
    keeper.logs.rest()

    assert max(sizes) > 400 * 1024
    assert max(sizes) <= 512 * 1024 + 64 * 1024
    assert (keeper.directory / FILE).stat().st_size < 2.5 * 1024 * 1024
    assert texts(keeper.directory, "n5-9")[-1].startswith("59 ")


async def test_what_is_deleted_at_once_is_given_back_step_by_step(keeper: Keeper) -> None:
    keeper.logs.bounds = LogBounds(8 * 2**20, 64 * 2**20, DAY_MS)
    for _ in range(100):
        keeper.say(keeper.world.random_bytes(20_000).hex())
        keeper.write()
    keeper.logs.rest()
    full = (keeper.directory / FILE).stat().st_size
    keeper.world.jump(timedelta(days=2))

    for _ in range(20):
        keeper.say("a new day")
        keeper.write()
    keeper.logs.rest()

    assert full > 1.5 * 2**20
    assert (keeper.directory / FILE).stat().st_size < 1.2 * 2**20
    assert set(texts(keeper.directory, "n1")) == {"a new day"}


async def test_lines_that_are_too_old_go_and_places_are_never_given_twice(keeper: Keeper) -> None:
    keeper.say("old")
    keeper.write()
    keeper.world.jump(timedelta(days=8))
    keeper.say("of another", "n2")
    keeper.write()
    gone = texts(keeper.directory, "n1")

    keeper.say("new")
    keeper.write()

    assert gone == []
    assert [(one.n, one.line.text) for one in places(keeper.directory, "n1")] == [(2, "new")]


async def test_a_chatty_node_has_room_until_it_has_not_and_its_neighbour_still_has(
    keeper: Keeper,
) -> None:
    keeper.logs.of_one_node, keeper.logs.of_all_nodes = 10_000, 25_000
    keeper.say("x" * 1000, times=10)
    first = (keeper.logs.has_room("n1"), keeper.logs.has_room("n2"))
    for node in ("n2", "n3"):
        keeper.say("x" * 1000, node, times=9)

    assert first == (False, True)
    assert not keeper.logs.has_room("n4")
    keeper.write()
    assert keeper.logs.has_room("n4")
    assert keeper.logs.waiting_bytes == 0


@pytest.mark.parametrize(
    "content", [b"this is no database" * 100, b"SQLite format 3\0" + bytes(100), None]
)
async def test_a_file_that_cannot_be_used_is_set_aside_and_a_new_one_begun(
    keeper: Keeper, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    file = keeper.directory / FILE
    if content is None:
        with sqlite3.connect(file) as other:
            other.execute("CREATE TABLE somebody_elses(x)")
        other.close()
    else:
        file.write_bytes(content)

    keeper.say("after it")
    keeper.write()

    assert texts(keeper.directory, "n1") == ["after it"]
    assert (keeper.directory / SET_ASIDE).exists()
    assert "set aside" in caplog.text


@pytest.mark.parametrize("sound", [8192, 32768])
async def test_damage_that_is_met_later_costs_the_file_and_not_the_lines(
    keeper: Keeper, sound: int, caplog: pytest.LogCaptureFixture
) -> None:
    for n in range(50):
        keeper.say(f"{n} " + keeper.world.random_bytes(3000).hex())
        keeper.write()
    keeper.logs.rest()
    whole = (keeper.directory / FILE).read_bytes()
    (keeper.directory / FILE).write_bytes(whole[:sound] + b"\xa5" * (len(whole) - sound))

    for _ in range(60):
        keeper.say("after it")
        keeper.write()
        await keeper.world.sleep(1)

    assert set(texts(keeper.directory, "n1")) == {"after it"}
    assert "set aside" in caplog.text
    assert keeper.logs.waiting_bytes == 0


async def test_only_the_newest_that_was_set_aside_is_kept(keeper: Keeper) -> None:
    for n in range(3):
        (keeper.directory / FILE).write_bytes(b"no database %d" % n * 100)
        keeper.say("a line")
        keeper.write()
        keeper.logs.rest()

    assert (keeper.directory / SET_ASIDE).read_bytes().startswith(b"no database 2")
    assert sorted(one.name for one in keeper.directory.iterdir()) == [FILE, SET_ASIDE]


async def test_where_nothing_can_be_written_lines_wait_and_one_warning_is_enough(
    keeper: Keeper, caplog: pytest.LogCaptureFixture
) -> None:
    (keeper.directory / FILE).mkdir()
    keeper.say("it waits")
    for _ in range(5):
        keeper.write()
        await keeper.world.sleep(6)
    warned = caplog.text.count("cannot be written")

    (keeper.directory / FILE).rmdir()
    keeper.write()

    assert warned == 1
    assert texts(keeper.directory, "n1") == ["it waits"]


async def test_a_reader_sees_only_what_it_wants_and_what_is_missing(keeper: Keeper) -> None:
    at = now_ms(keeper.world)
    for line in (
        Line(at, None, 1, Mark.NONE, "old and gold"),
        Line(at + 5000, None, 1, Mark.NONE, "Silver"),
        Line(at + 5000, None, 2, Mark.STDERR, "silver too"),
        Line(at + 5000, None, None, Mark.SYSTEM, "system"),
        Line(at + 5000, None, None, Mark.GAP, "rate", 7),
    ):
        keeper.logs.add("n1", [line])
        keeper.write()

    def found(wanted: Wanted) -> list[str]:
        db = open_to_read(keeper.directory)
        assert db is not None
        lines = [
            one.line.text for piece in log_reading.pieces(db, "n1", wanted) for one in piece.lines
        ]
        db.close()
        return lines[::-1]

    assert found(Wanted(service=1)) == ["old and gold", "Silver", "rate"]
    assert found(Wanted(system=True)) == ["system", "rate"]
    assert found(Wanted(service=2, system=True)) == ["silver too", "system", "rate"]
    assert found(Wanted(text="SILVER")) == ["Silver", "silver too", "rate"]
    assert found(Wanted(text="SILVER", service=2)) == ["silver too", "rate"]
    assert found(Wanted(since_ms=at + 1)) == ["Silver", "silver too", "system", "rate"]
    assert found(Wanted(since_ms=at + 9999)) == []


async def test_a_reader_that_comes_before_the_tables_finds_nothing_yet(tmp_path: Path) -> None:
    assert open_to_read(tmp_path) is None
    with sqlite3.connect(tmp_path / FILE) as made:
        made.execute("PRAGMA journal_mode=WAL")
    made.close()

    assert open_to_read(tmp_path) is None


async def test_a_reader_beside_the_writer_never_holds_it_up(keeper: Keeper) -> None:
    for n in range(40):
        keeper.say(f"line {n}")
        keeper.write()
    db = open_to_read(keeper.directory)
    assert db is not None

    seen = []
    for piece in log_reading.pieces(db, "n1", Wanted()):
        seen += [one.n for one in piece.lines]
        keeper.say("meanwhile")
        keeper.write()
    db.close()

    assert seen == list(range(40, 0, -1))
    assert keeper.logs.waiting_bytes == 0


async def test_cloudly_goes_on_without_logs_and_logs_go_on_afterwards(plane: Plane) -> None:
    (plane.directory / FILE).mkdir()
    await register(plane)
    stream = Stream(plane.app)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stream.run)
        stream.send(said("it waits"))
        await plane.world.sleep(10)
        answer = await plane.client.get("/healthz")
        (plane.directory / FILE).rmdir()
        await plane.world.sleep(10)
        written = texts(plane.directory)
        stream.end()

    assert answer.status_code == 200
    assert written == ["it waits"]
