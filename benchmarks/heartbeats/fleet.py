"""A database of N nodes that have enrolled and sent a heartbeat, made by the database itself."""

from __future__ import annotations

import hashlib
from pathlib import Path

import asyncpg

from cloudly.store.connection import connect
from cloudly.store.migrate import bring_up_to_date
from cloudly.store.pg.opening import open_postgresql
from cloudly.store.store import FILE
from journal.chain import genesis

EPOCH = "00112233445566778899aabbccddeeff"
WRITER = "ffeeddccbbaa99887766554433221100"
REPORTED = (
    '{"observed_generation":0,"uptime_s":1000.0,"boot_id":"5f0c1e9e-6b57-4b0e-9a53-0c5a9d0f0001"}'
)
BEGAN_MS = 1_790_000_000_000
CHUNK = 50_000

# fmt: off
TABLES = (
    ("node(id, node_id, hostname, device_type, agent_version, created_at_ms)",
     "i, {node_id}, 'n'||i, 'raspberrypi4-64', '0.1.0', {began}"),
    ("credential(node, token_hash, generation, secret_hash, nonce, still_open, enrolled_at_ms)",
     "i, {token_hash}, 1, {token_hash}, 'n', 0, {began}"),
    ("node_live(node, last_seen_at_ms, observed_generation, stable_hash)", "i, {began}, 0, {hash16}"),
    ("node_status(node, reported)", "i, '{reported}'"),
    ("epoch(node, n, epoch, began_at_ms, why)", "i, 1, '{epoch}', {began}, 'first'"),
    ("voice(node, epoch_n, epoch, writer, since_ms)", "i, 1, '{epoch}', '{writer}', {began}"),
    ("lane(node, epoch_n, lane, ack_seq, ack_hash, head_seq)", "i, 1, 'core', 0, {core}, 0"),
    ("lane(node, epoch_n, lane, ack_seq, ack_hash, head_seq)", "i, 1, 'log', 0, {log}, 0"),
)
# fmt: on


def token(number: int) -> str:
    return f"bnt_{number:043d}"


def node_id(number: int) -> str:
    return f"{number:032d}"


def sqlite_fleet(directory: Path, nodes: int) -> None:
    directory.mkdir(exist_ok=True)
    db = connect(directory / FILE)
    bring_up_to_date(directory / FILE, db)
    db.execute("PRAGMA synchronous=OFF")
    db.execute("PRAGMA foreign_keys=OFF")
    db.create_function("token_hash", 1, lambda i: hashlib.sha256(token(i).encode()).digest())
    words = _words("token_hash(i)", "printf('%032d', i)", lambda value: f"x'{value.hex()}'")
    for first in range(1, nodes + 1, CHUNK):
        last = min(first + CHUNK, nodes + 1) - 1
        numbers = (
            f"WITH RECURSIVE c(i) AS (SELECT {first} UNION ALL SELECT i+1 FROM c WHERE i<{last})"  # noqa: S608
        )
        db.execute("BEGIN")
        for columns, values in TABLES:
            db.execute(f"{numbers} INSERT INTO {columns} SELECT {values.format(**words)} FROM c")  # noqa: S608
        db.execute("COMMIT")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()


async def postgresql_fleet(url: str, nodes: int) -> None:
    open_postgresql(url).close()
    connection = await asyncpg.connect(url)
    hashed = "sha256(('bnt_'||lpad(i::text, 43, '0'))::bytea)"
    words = _words(hashed, "lpad(i::text, 32, '0')", lambda value: f"'\\x{value.hex()}'::bytea")
    await connection.execute(
        "SET session_replication_role='replica'"
    )  # no look-ups of foreign keys
    for columns, values in TABLES:
        await connection.execute(
            f"INSERT INTO {columns} SELECT {values.format(**words)} FROM generate_series(1, {nodes}) i"  # noqa: S608
        )
    await connection.execute(f"SELECT setval('node_id_seq', {nodes})")
    await connection.execute("ANALYZE")
    await connection.close()


def _words(token_hash: str, named: str, blob: object) -> dict[str, object]:
    assert callable(blob)
    return {
        "token_hash": token_hash,
        "node_id": named,
        "began": BEGAN_MS,
        "hash16": blob(b"\0" * 16),
        "reported": REPORTED,
        "epoch": EPOCH,
        "writer": WRITER,
        "core": blob(genesis(EPOCH, "core")),
        "log": blob(genesis(EPOCH, "log")),
    }
