"""Gaps have reasons, epochs a beginning and an end, heads and writers are remembered."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

Big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Columns are added where they are, so that a journal of any size stays in place."""
    for name in ("why", "predecessor", "problem", "kept_in"):
        _add("epoch", name, sa.Text(), default="")
    _add("epoch", "branch", sa.Text(), default="[]")
    for name in ("carried_core", "carried_log", "closed_at_ms"):
        _add("epoch", name, Big)
    _add("lane", "head_hash", sa.LargeBinary())
    _add("lane", "head_writer", sa.Text())
    _add("lane", "prior_seq", Big)
    _add("lane", "prior_hash", sa.LargeBinary())
    _add("lane_gap", "why", sa.Text(), default="unexplained")
    _add("lane_gap", "kinds", sa.Text(), default="{}")
    _add("lane_gap", "since_ms", Big)
    _add("lane_gap", "until_ms", Big)
    _add("lane_gap", "last_hash", sa.LargeBinary())
    _add("lane_gap", "at_n", Big)
    _add("journal_chunk", "first_n", Big)
    _add("journal_chunk", "last_n", Big)
    _add("journal_chunk", "quiet", Big, default="0")
    op.create_index(
        "ix_journal_chunk_story", "journal_chunk", ["node", "epoch_n", "lane", "quiet", "first_n"]
    )
    _tables()
    _fill()
    _place_chunks()


def _add(table: str, name: str, kind: sa.types.TypeEngine[Any], default: str | None = None) -> None:
    column: sa.Column[Any] = sa.Column(name, kind, nullable=default is None, server_default=default)
    op.add_column(table, column)


def _node(table: str) -> tuple[sa.schema.SchemaItem, sa.schema.SchemaItem]:
    return (
        sa.Column("node", Big, nullable=False),
        sa.ForeignKeyConstraint(["node"], ["node.id"], name=op.f(f"fk_{table}_node")),
    )


def _tables() -> None:
    op.create_table(
        "voice",
        *_node("voice"),
        sa.Column("epoch_n", Big, nullable=False),
        sa.Column("epoch", sa.Text(), nullable=False),
        sa.Column("writer", sa.Text(), nullable=True),
        sa.Column("since_ms", Big, nullable=False),
        sa.PrimaryKeyConstraint("node", name=op.f("pk_voice")),
        sqlite_strict=True,
    )
    op.create_table(
        "superseded",
        *_node("superseded"),
        sa.Column("writer", sa.Text(), nullable=False),
        sa.Column("at_ms", Big, nullable=False),
        sa.Column("seen_at_ms", Big, nullable=False),
        sa.Column("boot_id", sa.Text(), nullable=True),
        sa.Column("uptime_ms", Big, nullable=True),
        sa.PrimaryKeyConstraint("node", "writer", name=op.f("pk_superseded")),
        sqlite_strict=True,
    )
    op.create_table(
        "former_token",
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        *_node("former_token"),
        sa.PrimaryKeyConstraint("hash", name=op.f("pk_former_token")),
        sqlite_strict=True,
    )
    op.create_table(
        "fence",
        *_node("fence"),
        sa.Column("count", Big, nullable=False),
        sa.Column("first_at_ms", Big, nullable=False),
        sa.Column("last_at_ms", Big, nullable=False),
        sa.Column("alarm", Big, nullable=False),
        sa.Column("told", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("node", name=op.f("pk_fence")),
        sqlite_strict=True,
    )


def _fill() -> None:
    """What earlier rows say without having said it."""
    op.execute("UPDATE epoch SET why=CASE n WHEN 1 THEN 'first' ELSE 'unannounced' END")
    op.execute(
        "UPDATE epoch SET closed_at_ms=(SELECT e.began_at_ms FROM epoch e"
        " WHERE e.node=epoch.node AND e.n=epoch.n+1)"
    )
    op.execute("UPDATE lane SET head_hash=ack_hash WHERE head_seq=ack_seq")
    op.execute(
        "INSERT INTO voice(node, epoch_n, epoch, since_ms) SELECT node, n, epoch, began_at_ms FROM epoch e"
        " WHERE n=(SELECT max(n) FROM epoch WHERE node=e.node)"
    )


def _place_chunks() -> None:
    """Where each chunk is among the facts of both lanes, and whether it holds heartbeats only: as chunks.py does."""
    connection = op.get_bind()
    last: dict[tuple[int, int, str], int] = {}
    chunks = connection.exec_driver_sql(
        "SELECT id, node, epoch_n, lane FROM journal_chunk ORDER BY node, epoch_n, lane, first_seq"
    ).fetchall()
    for chunk, *lane in chunks:
        key = (lane[0], lane[1], lane[2])
        text = connection.execute(
            sa.text("SELECT events FROM journal_chunk WHERE id=:chunk"), {"chunk": chunk}
        ).scalar_one()
        places, quiet = [], True
        for event in json.loads(text):
            n = event.get("n")
            place = last.get(key, 0) + 1
            known = isinstance(n, int) and not isinstance(n, bool) and n <= 2**53
            last[key] = max(place, n) if known else place
            places.append(last[key])
            quiet = quiet and str(event.get("stream")).startswith("heartbeat/")
        connection.execute(
            sa.text(
                "UPDATE journal_chunk SET first_n=:first, last_n=:last, quiet=:quiet WHERE id=:chunk"
            ),
            {"first": places[0], "last": places[-1], "quiet": int(quiet), "chunk": chunk},
        )
    connection.exec_driver_sql(
        "UPDATE lane_gap SET at_n=(SELECT first_n FROM journal_chunk c WHERE (c.node, c.epoch_n, c.lane)="
        "(lane_gap.node, lane_gap.epoch_n, lane_gap.lane) AND c.first_seq=lane_gap.last_seq+1)"
    )
