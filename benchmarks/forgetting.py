"""What letting go of old facts costs: a million chunks, half of them old, slice by slice, on each engine.

`python -m benchmarks.forgetting sqlite|postgresql [chunks]`: chunks a second, and the longest decision.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from cloudly.store import forgetting
from cloudly.store.sql import Connection
from cloudly.store.store import Store
from interfaces.world import RealWorld

NODES = 1000
EVENT = {"seq": 1, "hash": "ab" * 32, "kind": "k", "data": "{}", "stream": "locks/1", "pad": "x" * 120}  # fmt: skip
EVENTS = json.dumps([EVENT] * 5)
OLD_MS, NEW_MS, NOW_MS = 1000, 5000, 9000
ROWS = (
    "INSERT INTO journal_chunk(node, epoch_n, lane, first_seq, last_seq, received_at_ms, opaque, events,"
    " first_n, last_n, quiet) VALUES(?,1,'core',?,?,?,0,?,?,?,0)"
)


def fill(store: Store, chunks: int) -> None:
    def nodes(db: Connection) -> None:
        for node in range(1, NODES + 1):
            db.execute(
                "INSERT INTO node(node_id, hostname, device_type, agent_version, created_at_ms)"
                " VALUES(?,'','','',1)",
                (f"n{node}",),
            )
        db.executemany(
            "INSERT INTO lane(node, epoch_n, lane, ack_seq, ack_hash, head_seq) VALUES(?,1,'core',1,?,1)",
            [(node, b"h") for node in range(1, NODES + 1)],
        )

    store.write_now(nodes)
    each = chunks // NODES
    for turn in range(0, each, 20):

        def some(db: Connection, turn: int = turn) -> None:
            db.executemany(
                ROWS,
                [
                    (node, 5 * at + 1, 5 * at + 5, OLD_MS if at < each // 2 else NEW_MS, EVENTS, 5 * at + 1, 5 * at + 5)
                    for at in range(turn, min(turn + 20, each))
                    for node in range(1, NODES + 1)
                ],
            )  # fmt: skip

        store.write_now(some)


def let_go(store: Store, chunks: int) -> None:
    took: list[float] = []
    began = time.monotonic()
    before_ms = (OLD_MS + NEW_MS) // 2
    looked = 0.0
    after: int | None = 0
    slices = 0
    while after is not None:
        look_began = time.monotonic()
        after_ = after
        lanes, after = store.read_now(
            lambda db, at=after_: forgetting.old_lanes(db, after=at, before_ms=before_ms)  # type: ignore[misc]
        )
        looked += time.monotonic() - look_began
        for lane in lanes:
            more = True
            while more:
                at = time.monotonic()
                more = store.write_now(
                    lambda db, lane=lane: forgetting.forget(  # type: ignore[misc]
                        db, lane, before_ms=before_ms, now_ms=NOW_MS
                    )
                )  # fmt: skip
                took.append((time.monotonic() - at) * 1000)
                slices += 1
    whole = time.monotonic() - began
    left = store.read_now(lambda db: db.execute("SELECT count(*) FROM journal_chunk").fetchone()[0])
    assert left == chunks // 2, left
    took.sort()
    print(
        f"  {chunks // 2} of {chunks} chunks let go in {whole:.1f} s: {chunks / 2 / whole:.0f} chunks/s,"
        f" {slices} decisions, {statistics.median(took):.1f} ms each (p99 {took[int(len(took) * 0.99)]:.1f}),"
        f" looking took {looked:.2f} s"
    )


def main(engine: str, chunks: int) -> None:
    from tests.postgresql import Server

    def measured(url: str | None) -> None:
        with tempfile.TemporaryDirectory(dir="/var/tmp") as room:
            store = Store.open(Path(room), RealWorld(), serves=False, database_url=url)
            fill(store, chunks)
            print(engine)
            let_go(store, chunks)
            if url is not None:
                _drop(store)
            store.close()

    if engine == "sqlite":
        measured(None)
        return
    with Server.running() as server, server.database() as url:
        measured(url)


def _drop(store: Store) -> None:
    """What a partition of the same half would cost: a table of its own, dropped."""

    def copy(db: Connection) -> Any:
        db.execute("CREATE TABLE day AS SELECT * FROM journal_chunk")
        db.execute("CREATE UNIQUE INDEX day_key ON day(node, epoch_n, lane, first_seq)")
        return None

    store.write_now(copy)
    began = time.monotonic()
    store.write_now(lambda db: db.execute("DROP TABLE day").rowcount)
    print(f"  a table of as many rows is dropped in {(time.monotonic() - began) * 1000:.0f} ms")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000)
