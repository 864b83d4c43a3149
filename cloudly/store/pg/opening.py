"""Opening the database on PostgreSQL: checked for what it must be, and migrated by one process at a time."""

from __future__ import annotations

from cloudly.problems import FromTheFuture, StoreUnavailable, StoreUnsafe
from cloudly.store import migrate
from cloudly.store.pg.address import Address
from cloudly.store.pg.bridge import Bridge, telling
from cloudly.store.pg.database import SETTINGS, PgDatabase, identity_of

OLDEST = 150000
"""PostgreSQL 15: what this is tried with. `server_version_num`."""
MIGRATES = 0x62617366
"""The advisory lock of who migrates."""


def open_postgresql(url: str) -> PgDatabase:
    """The engine, its schema up to date. Raises BadSettings, StoreProblem."""
    address = Address.of(url)
    database = PgDatabase(address)
    try:
        identity = database.aside.call(lambda _: _prepared(address))
    except StoreUnavailable as problem:
        database.close()
        raise StoreUnavailable(f"{address}: {problem}") from None
    except BaseException:
        database.close()
        raise
    database.recognize(identity)
    return database


async def _prepared(address: Address) -> str:
    with telling():
        bridge = Bridge(await address.connect({**SETTINGS, "statement_timeout": "0"}))
    try:
        await _check(bridge, address)
        await bridge.ask("SELECT pg_advisory_lock(?)", (MIGRATES,))
        await _bring_up_to_date(bridge, address)
        return await identity_of(bridge)
    finally:
        await bridge.raw.close(timeout=5)


async def _check(bridge: Bridge, address: Address) -> None:
    found = await bridge.ask(
        "SELECT current_setting('server_version_num')::int, current_setting('server_encoding'),"
        " current_setting('fsync'), current_setting('full_page_writes'), pg_is_in_recovery()"
    )
    version, encoding, fsync, full_pages, is_standby = found.fetchone()
    if version < OLDEST:
        raise StoreUnsafe(f"PostgreSQL at {address} is {version // 10000}: 15 or newer is needed")
    if encoding != "UTF8":
        raise StoreUnsafe(f"the database at {address} is {encoding}: make it with ENCODING 'UTF8'")
    if is_standby:
        raise StoreUnavailable(f"PostgreSQL at {address} is a standby: it takes no writes")
    if (fsync, full_pages) != ("on", "on"):
        raise StoreUnsafe(
            f"PostgreSQL at {address} runs with fsync={fsync}, full_page_writes={full_pages}:"
            " a power cut would lose what was acknowledged"
        )


async def _bring_up_to_date(bridge: Bridge, address: Address) -> None:
    present = await _revision(bridge)
    if present == migrate.HEAD:
        return
    if present is not None and present not in migrate.KNOWN:
        raise FromTheFuture(
            f"the database at {address} is at revision {present}, this Cloudly knows up to {migrate.HEAD}:"
            " run a Cloudly at least as new"
        )
    await migrate.upgrade_postgresql(address.sqlalchemy_url)


async def _revision(bridge: Bridge) -> str | None:
    there = (await bridge.ask("SELECT to_regclass('alembic_version') IS NOT NULL")).fetchone()
    if not there[0]:
        return None
    row = (await bridge.ask("SELECT version_num FROM alembic_version")).fetchone()
    return None if row is None else str(row[0])
