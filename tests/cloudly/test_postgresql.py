"""PostgreSQL under the store: it is killed, restored, too old, held up or not there, and nothing is lost or doubled."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from cloudly.problems import BadSettings, FromTheFuture, Refused, StoreUnavailable, StoreUnsafe
from cloudly.store.pg import database as engines
from cloudly.store.pg.address import Address
from cloudly.store.pg.database import DECISIONS, PgDatabase
from cloudly.store.pg.dialect import translated
from cloudly.store.schema import metadata
from cloudly.store.store import Store
from simulators.world import SimWorld
from tests.cloudly.given import Device, Plane, code_of
from tests.postgresql import Server

pytestmark = pytest.mark.anyio


@pytest.fixture
def engine() -> str:
    return "postgresql"


@pytest.fixture
async def killable(
    directory: Path,
    anyio_backend: object,  # noqa: ARG001 - the loop that the plane lives in
) -> AsyncIterator[tuple[Server, Plane]]:
    """A plane on a server that nobody else uses."""
    with Server.running() as server, server.database() as url:
        plane = Plane.begin(directory, database_url=url)
        yield server, plane
        plane.end()


def name_in(url: str) -> str:
    return url.partition("@/")[2].partition("?")[0]


# -- sentences


@pytest.mark.parametrize(
    ("ours", "theirs", "order"),
    [
        ("SELECT ?, ?", "SELECT $1, $2", (0, 1)),
        ("SELECT ?2, ?1, ?2", "SELECT $1, $2, $1", (1, 0)),
        ("SELECT '?', 'it''s ?', ?", "SELECT '?', 'it''s ?', $1", (0,)),
        ("SELECT group_concat(a, ' ')", "SELECT string_agg(a, ' ')", ()),
    ],
)
def test_a_sentence_is_translated(ours: str, theirs: str, order: tuple[int, ...]) -> None:
    sentence = translated(ours)

    assert (sentence.text, sentence.order) == (theirs, order)


async def test_the_migrations_end_in_exactly_the_schema_that_the_code_describes(
    plane: Plane,
) -> None:
    def differences(db: Any) -> dict[str, object]:
        found: dict[str, object] = {}
        for name, table in metadata.tables.items():
            columns = {
                row[0]: row[1] == "YES"
                for row in db.execute(
                    "SELECT column_name, is_nullable FROM information_schema.columns WHERE table_name=?",
                    (name,),
                )
            }
            if columns != {column.name: bool(column.nullable) for column in table.columns}:
                found[name] = columns
        return found

    def unordered(db: Any) -> list[Any]:
        found: list[Any] = db.execute(
            "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema='public'"
            " AND data_type='text' AND collation_name IS DISTINCT FROM 'C' AND table_name<>'alembic_version'"
        ).fetchall()
        return found

    assert plane.store.read_now(differences) == {}
    assert plane.store.read_now(unordered) == []


async def test_what_a_text_cannot_hold_becomes_a_question_mark(plane: Plane) -> None:
    device = await plane.device(hostname="kiosk\0one").enroll()

    assert plane.node(device.node_id)["hostname"] == "kiosk?one"


# -- opening


@pytest.mark.parametrize(
    "url",
    ["mysql://u:hidden-1@h/d", "postgresql://u:hidden-1@h", "postgresql://u:hidden-1@[h/d", "hidden-1"],
)  # fmt: skip
def test_what_is_no_address_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(BadSettings, match="CLOUDLY_DATABASE_URL") as refused:
        Address.of(url)

    assert "hidden-1" not in str(refused.value)


def test_a_database_that_is_not_there_says_so_and_tells_no_password(tmp_path: Path) -> None:
    url = f"postgresql://u:hidden-1@/nowhere?host={tmp_path}"

    with pytest.raises(StoreUnavailable) as refused:
        Store.open(tmp_path, SimWorld(1), database_url=url)

    assert "hidden-1" not in str(refused.value)
    assert "hidden-1" not in repr(Address.of(url))


@pytest.mark.parametrize(("setting", "value"), [("fsync", "off"), ("full_page_writes", "off")])
async def test_a_server_that_would_lose_what_it_promised_is_refused(
    postgresql: Server, tmp_path: Path, setting: str, value: str
) -> None:
    with postgresql.database() as url:
        postgresql.sql(f"ALTER SYSTEM SET {setting}='{value}'")
        postgresql.sql("SELECT pg_reload_conf()")
        try:
            await _until(lambda: postgresql.sql(f"SHOW {setting}") == value)
            with pytest.raises(StoreUnsafe, match=f"{setting}=off"):
                Store.open(tmp_path, SimWorld(1), database_url=url)
        finally:
            postgresql.sql(f"ALTER SYSTEM RESET {setting}")
            postgresql.sql("SELECT pg_reload_conf()")
            await _until(lambda: postgresql.sql(f"SHOW {setting}") == "on")


async def _until(true: Any) -> None:
    for _ in range(200):
        if true():
            return
        threading.Event().wait(0.05)
    raise AssertionError("it never came true")


async def test_a_database_from_the_future_is_not_touched(
    postgresql: Server, tmp_path: Path
) -> None:
    with postgresql.database() as url:
        name = name_in(url)
        postgresql.sql("UPDATE alembic_version SET version_num='9999'", name)

        with pytest.raises(FromTheFuture, match="9999"):
            Store.open(tmp_path, SimWorld(1), database_url=url)


def test_of_many_that_open_an_empty_database_at_once_one_migrates(
    postgresql: Server, tmp_path: Path
) -> None:
    with postgresql.database(template="template0") as url:
        opened: list[object] = []

        def open_it(number: int) -> None:
            try:
                store = Store.open(tmp_path / str(number), SimWorld(number), database_url=url)
                opened.append((store.incarnation, store.app_uuid))
                store.close()
            except Exception as problem:  # noqa: BLE001 - the assertion shows it
                opened.append(problem)

        threads = [threading.Thread(target=open_it, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert len(opened) == 6
    assert len(set(opened)) == 1, opened


# -- while it is used


async def test_a_server_that_was_killed_is_come_back_to_and_what_was_acked_is_there(
    killable: tuple[Server, Plane],
) -> None:
    server, plane = killable
    device = await plane.device().enroll()
    device.fact("app-update/1", "new", "a")
    assert (await device.ship()).status_code == 200
    device.fact("app-update/1", "a", "b")

    server.kill()
    lost = await device.ship()
    beat = await device.beat()
    server.start()
    again = await device.ship()

    assert code_of(lost) == (503, "busy")
    assert code_of(beat) == (503, "busy")
    assert again.status_code == 200
    assert again.json()["ack"]["seq"] == 2
    assert [row["dst"] for row in plane.rows("transition")] == ["a", "b"]


async def test_connections_that_are_cut_in_the_middle_lose_and_double_nothing(plane: Plane) -> None:
    devices = [await plane.device(f"n{number:02d}").enroll() for number in range(12)]
    database = plane.store.database
    assert isinstance(database, PgDatabase)

    async def live(device: Device) -> None:
        for turn in range(12):
            device.fact("enrollment/1", f"s{turn}", f"s{turn + 1}")
            for _ in range(20):
                if (await device.ship()).status_code == 200:
                    break
                await plane.world.sleep(1)
            else:
                raise AssertionError("never acked")

    async with anyio.create_task_group() as tasks:
        for device in devices:
            tasks.start_soon(live, device)
        for _ in range(6):
            await plane.world.sleep(0.5)
            plane.store.read_now(
                lambda db: db.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name='cloudly' AND pid<>pg_backend_pid()"
                ).fetchall()
            )

    chunks = plane.rows("journal_chunk")
    for number in {row["node"] for row in chunks}:
        told = sorted(
            (row["first_seq"], row["last_seq"]) for row in chunks if row["node"] == number
        )
        assert [first for first, _ in told] == [1, *(last + 1 for _, last in told[:-1])]
        assert told[-1][1] == 12
    assert plane.rows("lane_gap") == []


async def test_who_is_refused_or_fails_undoes_himself_and_not_his_neighbours(plane: Plane) -> None:
    outcomes: dict[int, str] = {}

    def refuse(db: Any) -> None:
        db.execute("INSERT INTO meta VALUES('undone', '1')")
        raise Refused("gap")

    def fail(db: Any) -> None:
        db.execute("INSERT INTO meta VALUES('undone', '2')")
        db.execute("SELECT 1/0")

    async def write(number: int, work: Any) -> None:
        try:
            await plane.store.write(work)
            outcomes[number] = "done"
        except Exception as problem:  # noqa: BLE001 - the assertion shows it
            outcomes[number] = type(problem).__name__

    def keep(db: Any) -> None:
        db.execute("INSERT INTO meta VALUES('kept', '1')")

    async with anyio.create_task_group() as tasks:
        for number, work in enumerate((refuse, keep, fail)):
            tasks.start_soon(write, number, work)

    assert outcomes == {0: "Refused", 1: "done", 2: "DivisionByZeroError"}
    assert {row["key"] for row in plane.rows("meta")} >= {"kept"}
    assert "undone" not in {row["key"] for row in plane.rows("meta")}


@asynccontextmanager
async def held(database: PgDatabase, lock: str) -> AsyncIterator[None]:
    """Another process has begun something and does not end it."""
    database.in_flight += 1  # virtual time stands while a real server is spoken with
    connection = await database._address.connect({})
    await connection.execute("BEGIN")
    await connection.execute(lock)
    database.in_flight -= 1
    yield
    database.in_flight += 1
    await connection.close()
    database.in_flight -= 1


async def test_a_decision_of_another_process_makes_us_busy_for_a_bounded_time_not_wrong(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(engines.SETTINGS, "lock_timeout", "200ms")
    device = await plane.device().enroll()
    database = plane.store.database
    assert isinstance(database, PgDatabase)
    async with held(database, f"SELECT pg_advisory_xact_lock({DECISIONS})"):
        refused = await device.beat()
        page = await plane.client.get("/")

    assert code_of(refused) == (503, "busy")
    assert page.status_code == 200  # readers are never blocked
    assert (await device.beat()).status_code == 200


async def test_a_server_that_froze_while_it_decided_is_cut_off_and_was_only_busy(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it held is free again for the others; it is told so, and goes on."""
    monkeypatch.setitem(engines.SETTINGS, "idle_in_transaction_session_timeout", "100ms")
    await plane.store.leave()  # the next connection is made with that

    def freeze(db: Any) -> None:
        db.execute("INSERT INTO meta VALUES('frozen', '1')")
        threading.Event().wait(0.5)
        db.execute("SELECT 1")

    with pytest.raises(StoreUnavailable, match="nothing was written"):
        await plane.store.write(freeze)
    await plane.store.write(lambda db: db.execute("INSERT INTO meta VALUES('awake', '1')").rowcount)

    assert {"frozen", "awake"} & {row["key"] for row in plane.rows("meta")} == {"awake"}


async def test_who_waits_in_vain_for_a_free_connection_is_told_after_twenty_seconds(
    plane: Plane,
) -> None:
    database = plane.store.database
    assert isinstance(database, PgDatabase)
    monopoly = anyio.Semaphore(1)
    database._slots = monopoly
    await monopoly.acquire()  # another one works on it, for longer than we wait
    began = plane.world.monotonic()

    with pytest.raises(StoreUnavailable, match="no connection was free for 20 s"):
        await plane.store.read(lambda db: db.execute("SELECT 1").fetchone())
    waited = plane.world.monotonic() - began
    monopoly.release()

    assert waited == pytest.approx(20, abs=0.1)
    assert (await plane.store.read(lambda db: db.execute("SELECT 1").fetchone()))[0] == 1


# -- another life


def dumped(postgresql: Server, name: str) -> Path:
    """As an operator's backup is."""
    file = postgresql.home / "dump.sql"
    file.write_text(
        postgresql.run("pg_dump", "-h", str(postgresql.home), "--no-owner", name).stdout
    )
    file.chmod(0o644)
    return file


async def test_a_database_that_was_restored_from_a_dump_has_another_incarnation(
    postgresql: Server, plane: Plane, tmp_path: Path
) -> None:
    before = plane.store.incarnation
    again = Store.open(tmp_path / "second", SimWorld(2), database_url=plane.database_url)
    assert again.incarnation == before  # a second server beside the first
    again.close()
    name = name_in(plane.database_url or "")
    dump = dumped(postgresql, name)

    with postgresql.database(template="template0") as url:
        other = name_in(url)
        postgresql.run("psql", "-h", str(postgresql.home), "-qX", "-d", other, "-f", str(dump))
        restored = Store.open(tmp_path / "third", SimWorld(3), database_url=url)

        assert restored.incarnation != before
        assert restored.app_uuid == plane.store.app_uuid
        restored.close()


async def test_a_server_whose_database_was_exchanged_under_it_does_nothing_more(
    postgresql: Server, plane: Plane
) -> None:
    device = await plane.device().enroll()
    name = name_in(plane.database_url or "")
    told: list[int] = []
    plane.store.when_broken(lambda: told.append(1))

    cut = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname='{name}'"  # noqa: S608
    postgresql.sql(cut)
    postgresql.sql(f"ALTER DATABASE {name} RENAME TO gone_{name}")
    postgresql.sql(f"CREATE DATABASE {name} TEMPLATE empty")
    first = await device.beat()
    second = await device.beat()

    assert [code_of(first), code_of(second)] == [(503, "busy")] * 2
    assert plane.store.broken
    assert told
    postgresql.sql(f"DROP DATABASE gone_{name} WITH (FORCE)")
