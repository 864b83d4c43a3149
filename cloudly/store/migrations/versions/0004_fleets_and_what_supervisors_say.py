"""Fleets; releases from compose files; what a Supervisor asks, sets and reports."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

Big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Columns are added where they are; what was wanted of all nodes is wanted of the first fleet."""
    _add("join_token", "fleet", Big, default="1")
    _add("node", "fleet", Big, default="1")
    _add("release", "volumes", sa.Text(), default="{}")
    _add("release", "networks", sa.Text(), default="{}")
    _add("release", "compose", sa.Text())
    _add("release_service", "environment", sa.Text(), default="{}")
    _add("release_service", "composition", sa.Text(), default='{"restart":"always"}')
    _add("device", "seen_at_ms", Big)
    _add("device", "name", sa.Text(), default="")
    _add("device", "api_secret_hash", sa.LargeBinary())
    _tables()
    _first_fleet()


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
        "fleet",
        sa.Column("id", Big, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at_ms", Big, nullable=False),
        sa.Column("release", Big, nullable=True),
        sa.Column("policy", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["release"], ["release.id"], name=op.f("fk_fleet_release")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_fleet")),
        sa.UniqueConstraint("name", name=op.f("uq_fleet_name")),
        sqlite_strict=True,
    )
    op.create_table(
        "device_config",
        *_node("device_config"),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("node", "name", name=op.f("pk_device_config")),
        sqlite_strict=True,
    )
    op.create_table(
        "device_tag",
        sa.Column("id", Big, nullable=False),
        *_node("device_tag"),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_device_tag")),
        sa.UniqueConstraint("node", "key", name=op.f("uq_device_tag_node_key")),
        sqlite_strict=True,
    )
    op.create_table(
        "diagnosis",
        sa.Column("id", sa.Text(), nullable=False),
        *_node("diagnosis"),
        sa.Column("asked_at_ms", Big, nullable=False),
        sa.Column("answered_at_ms", Big, nullable=True),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_diagnosis")),
        sqlite_strict=True,
    )
    op.create_index("ix_diagnosis_node", "diagnosis", ["node", "answered_at_ms"])


def _first_fleet() -> None:
    connection = op.get_bind()
    found = connection.exec_driver_sql("SELECT value FROM meta WHERE key='default-release'").first()
    wanted = json.loads(found[0]) if found else {"release": None, "policy": None}
    connection.execute(
        sa.text(
            "INSERT INTO fleet(id, name, created_at_ms, release, policy)"
            " VALUES(1, 'default', 0, :release, :policy)"
        ),
        {"release": wanted["release"], "policy": wanted["policy"]},
    )
    if connection.dialect.name == "postgresql":  # its counter does not see a number that was given
        connection.exec_driver_sql("SELECT setval(pg_get_serial_sequence('fleet', 'id'), 1)")
    connection.exec_driver_sql("DELETE FROM meta WHERE key='default-release'")
