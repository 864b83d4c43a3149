"""Who may come in: by hash only, never a token itself."""

from __future__ import annotations

import sqlalchemy as sa

from cloudly.store.schema.columns import (
    Big,
    added_integer,
    added_text,
    digest,
    integer,
    of_node,
    table,
    text,
)

join_token = table(
    "join_token",
    sa.Column("id", Big, primary_key=True),
    digest("hash", unique=True),
    text("name"),
    integer("uses"),
    integer("uses_left"),
    integer("created_at_ms"),
    integer("expires_at_ms", nullable=True),
    integer("revoked_at_ms", nullable=True),
    added_integer("fleet", "1"),
    added_text("labels", "{}"),  # which its nodes come with
)
join_use = table(
    "join_use",
    sa.Column("token", Big, sa.ForeignKey("join_token.id"), primary_key=True),
    of_node(),
    digest("secret_hash", nullable=True),
    digest("device_key_hash", nullable=True),
    integer("at_ms"),  # of the half that came first
    integer("agent_at_ms", nullable=True),
    integer("supervisor_at_ms", nullable=True),
)
credential = table(
    "credential",
    of_node(),
    digest("token_hash", unique=True),
    integer("generation"),
    digest("secret_hash"),
    text("nonce"),
    integer("still_open"),
    integer("enrolled_at_ms"),
    integer("rotate_asked_at_ms", nullable=True),
    digest("next_hash", nullable=True),  # of the node token that the device drew to follow this one
    integer("rotated_at_ms", nullable=True),
    sa.Index("ix_credential_next_hash", "next_hash", unique=True),
)
former_token = table(
    "former_token",
    sa.Column("hash", sa.LargeBinary, primary_key=True),
    sa.Column("node", Big, sa.ForeignKey("node.id"), nullable=False),
)  # node tokens that a later enrollment replaced: who still has one is told so
api_token = table(
    "api_token",
    sa.Column("id", Big, primary_key=True),
    digest("hash", unique=True),
    text("name"),
    text("role"),  # viewer | operator | approver | admin
    integer("created_at_ms"),
    integer("expires_at_ms", nullable=True),
    integer("revoked_at_ms", nullable=True),
    integer("used_at_ms", nullable=True),
)
