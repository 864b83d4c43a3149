"""Bringing the database to the schema of this Cloudly, in the process that opens it.

Alembic is imported only when there is something to do: it costs a third of a second that `cloudly node list`
need not pay.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudly.problems import FromTheFuture

if TYPE_CHECKING:
    import sqlalchemy as sa

HEAD = "0005"
"""The newest revision in `migrations/versions`; a test compares."""

KNOWN = ("0001", "0002", "0003", "0004", "0005")


def revision(connection: sqlite3.Connection) -> str | None:
    """The revision that the database is at; None before the first."""
    there = connection.execute(
        "SELECT 1 FROM sqlite_master WHERE name='alembic_version'"
    ).fetchone()
    row = (
        connection.execute("SELECT version_num FROM alembic_version").fetchone() if there else None
    )
    return None if row is None else str(row[0])


def bring_up_to_date(file: Path, connection: sqlite3.Connection) -> None:
    """Migrate if need be. Raises FromTheFuture."""
    present = revision(connection)
    if present == HEAD:
        return
    if present is not None and present not in KNOWN:
        raise FromTheFuture(
            f"{file} is at revision {present}, this Cloudly knows up to {HEAD}: run a Cloudly at least as new"
        )
    _upgrade(file)


def engine_of(file: Path) -> sa.Engine:
    """An engine whose transactions are real ones: the driver's own would commit at each DDL statement."""
    import sqlalchemy as sa

    engine = sa.create_engine(f"sqlite:///{file}", poolclass=sa.NullPool)

    @sa.event.listens_for(engine, "connect")
    def _manual(connection: Any, _record: object) -> None:
        connection.isolation_level = None

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _upgrade(file: Path) -> None:
    engine = engine_of(file)
    try:
        with engine.begin() as connection:
            upgrade(connection)
    finally:
        engine.dispose()


async def upgrade_postgresql(url: str) -> None:
    """To the newest revision, in one transaction: DDL is undone like all else there."""
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.pool import NullPool

    engine = create_async_engine(url, poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(upgrade)
    finally:
        await engine.dispose()


def upgrade(connection: sa.Connection) -> None:
    """To the newest revision, in the transaction of who calls."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
