"""The store: durable before it answers, one COMMIT for many, each decision on its own, and honest when it fails."""

from __future__ import annotations

import json
import sqlite3
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest

from cloudly.problems import FromTheFuture, Refused, StoreUnavailable, StoreUnsafe
from cloudly.store import connection as connecting
from cloudly.store import migrate as migrating
from cloudly.store.connection import connect
from cloudly.store.database import Pending
from cloudly.store.group import Group
from cloudly.store.migrate import HEAD, KNOWN, bring_up_to_date, engine_of, revision
from cloudly.store.schema import metadata
from cloudly.store.sql import Connection
from cloudly.store.sqlite import SqliteDatabase
from cloudly.store.store import FILE, Store
from cloudly.store.together import MOST
from simulators.world import SimWorld
from tests.cloudly.given import UUID, Plane, code_of

pytestmark = pytest.mark.anyio

Work = Callable[[Connection], Any]


def grouped(file: Path) -> Group:
    return Group(SqliteDatabase(connect(file)))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "group.db"
    connection = connect(file)
    connection.execute("CREATE TABLE t(x INTEGER PRIMARY KEY) STRICT")
    connection.close()
    return file


def connection_of(plane: Plane) -> sqlite3.Connection:
    database = plane.store.database
    assert isinstance(database, SqliteDatabase)
    return database._connection


def insert(x: int) -> Work:
    return lambda db: db.execute("INSERT INTO t VALUES(?) RETURNING x", (x,)).fetchone()[0]


def committed(file: Path) -> list[int]:
    """What another process sees."""
    other = sqlite3.connect(file)
    rows = [row[0] for row in other.execute("SELECT x FROM t ORDER BY x")]
    other.close()
    return rows


async def test_what_was_answered_is_committed(file: Path) -> None:
    group = grouped(file)

    for x in range(5):
        assert await group.write(insert(x)) == x
        assert committed(file) == list(range(x + 1))


async def test_nobody_hears_of_his_decision_before_the_commit(file: Path) -> None:
    assert await seen_when_answered(grouped(file), file) == [True] * 50


async def test_and_this_harness_would_see_an_answer_before_the_commit(file: Path) -> None:
    assert False in await seen_when_answered(Group(Hasty(connect(file))), file)


class Hasty(SqliteDatabase):
    """A planted defect: it answers when the statement has run and commits with the next batch."""

    async def commit(self, batch: Sequence[Pending]) -> None:
        if self._connection.in_transaction:
            self._connection.execute("COMMIT")
        self._connection.execute("BEGIN IMMEDIATE")
        for pending in batch:
            self._decide(pending)


async def seen_when_answered(group: Group, file: Path) -> list[bool]:
    """For each of fifty writers: whether another process sees his row at the moment he is answered."""
    seen = []

    async def write(x: int) -> None:
        await group.write(insert(x))
        seen.append(x in committed(file))

    async with anyio.create_task_group() as tasks:
        for x in range(50):
            tasks.start_soon(write, x)
    return seen


async def test_those_who_come_together_share_one_commit(file: Path) -> None:
    database = SqliteDatabase(connect(file))
    group = Group(database)

    async with anyio.create_task_group() as tasks:
        for x in range(MOST + 10):
            tasks.start_soon(group.write, insert(x))

    assert database.commits == 2
    assert database.decisions == MOST + 10
    assert len(committed(file)) == MOST + 10


async def test_a_refusal_or_a_bug_undoes_itself_and_not_its_neighbours(file: Path) -> None:
    group = grouped(file)
    outcomes: dict[int, Any] = {}

    def refuse(db: Connection) -> None:
        db.execute("INSERT INTO t VALUES(100)")
        raise Refused("gap")

    def fail(db: Connection) -> None:
        db.execute("INSERT INTO t VALUES(101)")
        raise ZeroDivisionError

    async def write(name: int, work: Work) -> None:
        try:
            outcomes[name] = await group.write(work)
        except (Refused, ZeroDivisionError, sqlite3.IntegrityError) as problem:
            outcomes[name] = type(problem).__name__

    async with anyio.create_task_group() as tasks:
        for name, work in enumerate([insert(1), refuse, insert(2), fail, insert(1), insert(3)]):
            tasks.start_soon(write, name, work)

    assert outcomes == {0: 1, 1: "Refused", 2: 2, 3: "ZeroDivisionError", 4: "IntegrityError", 5: 3}
    assert committed(file) == [1, 2, 3]


async def test_a_leader_who_is_cancelled_still_commits_for_those_who_follow(file: Path) -> None:
    group = grouped(file)
    answered: list[Any] = []

    async def lead(scope: anyio.CancelScope) -> None:
        with scope:
            await group.write(insert(1))
            answered.append("leader")

    async def follow() -> None:
        answered.append(await group.write(insert(2)))

    scope = anyio.CancelScope()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lead, scope)
        tasks.start_soon(follow)
        scope.cancel()

    assert answered == [2]
    assert committed(file) == [1, 2]
    assert await group.write(insert(3)) == 3


async def test_those_who_went_away_are_committed_and_nobody_waits_for_them_to_lead(
    file: Path,
) -> None:
    group = grouped(file)
    answered: list[Any] = []

    async def write(x: int) -> None:
        answered.append(await group.write(insert(x)))

    async with anyio.create_task_group() as tasks:
        for x in range(MOST + 1):
            tasks.start_soon(write, x)
        with anyio.CancelScope() as scope:
            tasks.start_soon(leave, scope)
            await write(MOST + 1)
        await write(MOST + 2)

    assert sorted(answered) == [*range(MOST + 1), MOST + 2]
    assert len(committed(file)) == MOST + 3


async def leave(scope: anyio.CancelScope) -> None:
    scope.cancel()


async def test_a_full_disk_answers_busy_acks_nothing_and_heals(plane: Plane) -> None:
    device = await plane.device().enroll()
    db = connection_of(plane)
    pages = db.execute("PRAGMA page_count").fetchone()[0]
    for number in range(200):
        device.fact("app-update/1", "a", f"b{number}", reason="x" * 2000)
    db.execute(f"PRAGMA max_page_count={pages}")

    full = await device.ship()
    still = await device.beat()
    db.execute("PRAGMA max_page_count=1000000")

    assert code_of(full) == (503, "busy")
    assert full.headers["retry-after"] == "5"
    assert still.status_code in {200, 503}  # a heartbeat may still fit
    assert plane.rows("journal_chunk") == []
    assert (await device.ship()).json()["ack"]["seq"] == 200
    assert not plane.store.broken


async def test_another_process_that_holds_the_database_makes_us_busy_not_wrong(
    plane: Plane,
) -> None:
    device = await plane.device().enroll()
    connection_of(plane).execute("PRAGMA busy_timeout=1")
    other = sqlite3.connect(plane.directory / FILE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    refused = await device.beat()
    page = await plane.client.get("/")
    other.execute("ROLLBACK")
    other.close()

    assert code_of(refused) == (503, "busy")
    assert page.status_code == 200  # readers are never blocked
    assert (await device.beat()).status_code == 200


class Failing:
    """A connection whose disk fails at COMMIT."""

    def __init__(self, real: sqlite3.Connection) -> None:
        self._real = real
        self.failed = 0

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        if sql == "COMMIT":
            self.failed += 1
            problem = sqlite3.OperationalError("disk I/O error")
            problem.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
            raise problem
        return self._real.execute(sql, *values)

    @property
    def in_transaction(self) -> bool:
        return self._real.in_transaction


async def test_after_a_failed_fsync_nothing_is_written_any_more_and_the_server_is_told(
    file: Path,
) -> None:
    failing = Failing(connect(file))
    group, told = Group(SqliteDatabase(failing)), []  # type: ignore[arg-type]
    group.on_broken = lambda: told.append(1)

    for x in range(3):
        with pytest.raises(StoreUnavailable):
            await group.write(insert(x))

    assert failing.failed == 1  # the fault fired, once; later writes did not even try
    assert group.broken
    assert told  # at least once
    assert committed(file) == []


async def test_a_broken_store_is_not_healthy(plane: Plane) -> None:
    plane.store.database.broken = True

    assert code_of(await plane.client.get("/healthz")) == (503, "busy")


async def test_the_database_is_for_its_owner_only(tmp_path: Path) -> None:
    directory = tmp_path / "deep" / "down"

    Store.open(directory, SimWorld(1)).close()

    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(one.stat().st_mode) for one in directory.iterdir()} == {0o600}


async def test_the_settings_that_durability_needs_are_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = connect(tmp_path / "x.db")
    assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert connection.execute("PRAGMA synchronous").fetchone()[0] == 2
    connection.close()

    monkeypatch.setattr(connecting, "FULL", 3)
    with pytest.raises(StoreUnsafe, match="asked SQLite for WAL"):
        connect(tmp_path / "x.db")


async def test_a_database_from_the_future_is_not_touched(directory: Path) -> None:
    connection = connect(directory / FILE)
    connection.execute("UPDATE alembic_version SET version_num='9999'")
    connection.close()

    with pytest.raises(FromTheFuture, match="9999"):
        Store.open(directory, SimWorld(1))


async def test_what_is_no_database_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"not a database at all, whatever it says" * 100)

    with pytest.raises(StoreUnavailable, match=FILE):
        Store.open(tmp_path, SimWorld(1))


async def test_an_incarnation_is_drawn_once_per_database(directory: Path, tmp_path: Path) -> None:
    first = Plane.begin(directory)
    second = first.again()
    other = Plane.begin(tmp_path / "other", world=SimWorld(8))

    assert first.store.incarnation == second.store.incarnation
    assert second.store.incarnation != other.store.incarnation
    second.end()
    other.end()


async def test_the_migrations_end_in_exactly_the_schema_that_the_code_describes(
    migrated: Path,
) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    engine = engine_of(migrated)
    with engine.begin() as connection:
        context = MigrationContext.configure(connection)
        differences = compare_metadata(context, metadata)
    engine.dispose()

    assert differences == []


def at_revision(file: Path, revision: str) -> sqlite3.Connection:
    """A database as an earlier Cloudly left it."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(migrating.__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    engine = engine_of(file)
    with engine.begin() as first:
        config.attributes["connection"] = first
        command.upgrade(config, revision)
    engine.dispose()
    return connect(file)


async def test_a_database_of_the_first_schema_keeps_what_is_wanted(tmp_path: Path) -> None:
    file = tmp_path / FILE
    connection = at_revision(file, "0001")
    connection.execute("PRAGMA foreign_keys=OFF")
    connection.execute("INSERT INTO desired VALUES(7, 3, 'd')")

    bring_up_to_date(file, connection)

    assert [tuple(row) for row in connection.execute("SELECT * FROM desired")] == [(7, 3, "d")]
    connection.close()


async def test_a_journal_of_an_earlier_cloudly_is_told_in_full_after_the_migration(
    tmp_path: Path,
) -> None:
    connection = at_revision(tmp_path / FILE, "0002")
    connection.execute("PRAGMA foreign_keys=OFF")
    for epoch_n in (1, 2):
        connection.execute("INSERT INTO epoch VALUES(1,?,?,?)", (epoch_n, f"e{epoch_n}", epoch_n))
    connection.execute("INSERT INTO lane VALUES(1,1,'core',7,x'07',7)")
    connection.execute("INSERT INTO lane VALUES(1,1,'log',1,x'01',3)")
    connection.execute("INSERT INTO lane_gap VALUES(1,1,'core',3,5,9)")
    for lane, first, last, events in (
        ("core", 1, 2, [{"n": 1, "stream": "a/1"}, {"n": 4, "stream": "a/1"}]),
        ("log", 1, 1, [{"n": 2, "stream": "heartbeat/1"}]),
        ("core", 6, 7, [{"n": "odd"}, {"n": 12, "stream": "a/1"}]),
    ):
        connection.execute(
            "INSERT INTO journal_chunk(node, epoch_n, lane, first_seq, last_seq, received_at_ms, opaque, events)"
            " VALUES(1,1,?,?,?,0,0,?)",
            (lane, first, last, json.dumps(events)),
        )

    bring_up_to_date(tmp_path / FILE, connection)

    chunks = connection.execute(
        "SELECT lane, first_n, last_n, quiet FROM journal_chunk ORDER BY lane, first_seq"
    )
    assert [tuple(row) for row in chunks] == [
        ("core", 1, 4, 0),
        ("core", 5, 12, 0),
        ("log", 2, 2, 1),
    ]
    gap = connection.execute("SELECT why, kinds, at_n FROM lane_gap").fetchone()
    assert tuple(gap) == ("unexplained", "{}", 5)
    epochs = connection.execute("SELECT why, closed_at_ms FROM epoch ORDER BY n")
    assert [tuple(row) for row in epochs] == [("first", 2), ("unannounced", None)]
    voice = connection.execute("SELECT epoch_n, epoch, writer FROM voice").fetchone()
    assert tuple(voice) == (2, "e2", None)
    heads = connection.execute("SELECT lane, head_hash FROM lane ORDER BY lane")
    assert [tuple(row) for row in heads] == [("core", b"\x07"), ("log", None)]
    connection.close()


async def test_every_table_of_ours_is_strict(migrated: Path) -> None:
    connection = connect(migrated)
    tables = {
        row["name"]: row["strict"]
        for row in connection.execute("PRAGMA table_list")
        if row["schema"] == "main"
    }
    connection.close()

    ours = {table.name for table in metadata.sorted_tables}
    assert {name: strict for name, strict in tables.items() if name in ours and not strict} == {}
    assert ours <= set(tables)


async def test_the_known_revisions_are_the_files_that_are_there() -> None:
    from cloudly.store.migrations import versions

    files = sorted(file.name[:4] for file in Path(versions.__file__).parent.glob("[0-9]*.py"))

    assert list(KNOWN) == files
    assert files[-1] == HEAD


async def test_a_migration_that_dies_in_the_middle_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import alembic.op

    file, real, calls = tmp_path / FILE, alembic.op.create_table, []

    def dying(*args: Any, **options: Any) -> Any:
        calls.append(args[0])
        if len(calls) == 5:
            raise OSError("the process dies here")
        return real(*args, **options)

    monkeypatch.setattr(alembic.op, "create_table", dying)
    connection = connect(file)
    with pytest.raises(OSError, match="dies here"):
        bring_up_to_date(file, connection)
    monkeypatch.undo()

    assert len(calls) == 5
    assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    bring_up_to_date(file, connection)
    assert revision(connection) == HEAD
    connection.close()


async def test_the_operator_may_write_beside_a_running_server(plane: Plane) -> None:
    device = await plane.device().enroll()
    operator = Plane.begin(plane.directory, world=plane.world)

    operator.release("1.0.0", UUID)
    operator.revoke_token()

    assert (await device.beat()).json()["desired"]["app"]["version"] == "1.0.0"
    assert plane.rows("join_token")[0]["revoked_at_ms"] is not None
    operator.end()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_no_file_of_the_store_is_open_after_its_end(directory: Path) -> None:
    before = open_files()

    Plane.begin(directory).end()

    assert open_files() == before
