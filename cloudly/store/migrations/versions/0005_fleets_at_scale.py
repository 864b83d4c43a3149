"""Fleets at scale: labels, token rotation, channels, pins, rollouts, webhooks, tokens of the API."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

Big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Columns are added where they are, so that a journal of any size stays in place."""
    op.add_column("credential", sa.Column("rotate_asked_at_ms", Big, nullable=True))
    op.add_column("credential", sa.Column("next_hash", sa.LargeBinary(), nullable=True))
    op.add_column("credential", sa.Column("rotated_at_ms", Big, nullable=True))
    op.add_column("deployment", sa.Column("rollout", Big, nullable=True))
    op.add_column("deployment", sa.Column("actor", sa.Text(), server_default="", nullable=False))
    op.add_column("fleet", sa.Column("channel", Big, nullable=True))
    op.add_column("join_token", sa.Column("labels", sa.Text(), server_default="{}", nullable=False))
    op.add_column("join_use", sa.Column("agent_at_ms", Big, nullable=True))
    op.add_column("join_use", sa.Column("supervisor_at_ms", Big, nullable=True))
    op.add_column("node", sa.Column("labels", sa.Text(), server_default="{}", nullable=False))
    op.add_column("node", sa.Column("quarantined_at_ms", Big, nullable=True))
    op.add_column("node", sa.Column("quarantine", sa.Text(), nullable=True))
    op.add_column("node", sa.Column("retired_at_ms", Big, nullable=True))
    op.add_column("node", sa.Column("retirement", sa.Text(), nullable=True))
    op.create_index("ix_credential_next_hash", "credential", ["next_hash"], unique=True)
    op.create_index("ix_node_fleet", "node", ["fleet"], unique=False)
    _governance()
    _rollouts()
    _telling()


def _governance() -> None:
    op.create_table(
        "channel",
        sa.Column("id", Big, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at_ms", Big, nullable=False),
        sa.Column("approvals", Big, nullable=False),
        sa.Column("second_person", Big, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_channel")),
        sa.UniqueConstraint("name", name=op.f("uq_channel_name")),
        sqlite_strict=True,
    )
    op.create_table(
        "channel_release",
        sa.Column("channel", Big, nullable=False),
        sa.Column("seq", Big, nullable=False),
        sa.Column("release", Big, nullable=False),
        sa.Column("proposed_at_ms", Big, nullable=False),
        sa.Column("proposed_by", sa.Text(), nullable=False),
        sa.Column("published_at_ms", Big, nullable=True),
        sa.Column("withdrawn_at_ms", Big, nullable=True),
        sa.Column("withdrawn", sa.Text(), nullable=True),
        sa.Column("is_floor", Big, nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["channel"], ["channel.id"], name=op.f("fk_channel_release_channel")
        ),
        sa.ForeignKeyConstraint(
            ["release"], ["release.id"], name=op.f("fk_channel_release_release")
        ),
        sa.PrimaryKeyConstraint("channel", "seq", name=op.f("pk_channel_release")),
        sa.UniqueConstraint("channel", "release", name=op.f("uq_channel_release_channel_release")),
        sqlite_strict=True,
    )
    op.create_table(
        "approval",
        sa.Column("id", Big, nullable=False),
        sa.Column("channel", Big, nullable=False),
        sa.Column("release", Big, nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("at_ms", Big, nullable=False),
        sa.Column("decision", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["channel"], ["channel.id"], name=op.f("fk_approval_channel")),
        sa.ForeignKeyConstraint(["release"], ["release.id"], name=op.f("fk_approval_release")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_approval")),
        sa.UniqueConstraint(
            "channel", "release", "actor", name=op.f("uq_approval_channel_release_actor")
        ),
        sqlite_strict=True,
    )
    op.create_table(
        "pin",
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("scope_id", Big, nullable=False),
        sa.Column("release", Big, nullable=True),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at_ms", Big, nullable=False),
        sa.Column("until_ms", Big, nullable=True),
        sa.ForeignKeyConstraint(["release"], ["release.id"], name=op.f("fk_pin_release")),
        sa.PrimaryKeyConstraint("scope", "scope_id", name=op.f("pk_pin")),
        sqlite_strict=True,
    )
    op.create_table(
        "ban",
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at_ms", Big, nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_ban")),
        sqlite_strict=True,
    )
    op.create_table(
        "audit",
        sa.Column("id", Big, nullable=False),
        sa.Column("at_ms", Big, nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("act", sa.Text(), nullable=False),
        sa.Column("object", sa.Text(), nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
        sqlite_strict=True,
    )
    op.create_index("ix_audit_object", "audit", ["object", "id"], unique=False)


def _rollouts() -> None:
    op.create_table(
        "rollout",
        sa.Column("id", Big, nullable=False),
        sa.Column("release", Big, nullable=False),
        sa.Column("plan", sa.Text(), nullable=False),
        sa.Column("policy", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("seq", Big, nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("created_at_ms", Big, nullable=False),
        sa.Column("is_open", Big, nullable=False),
        sa.ForeignKeyConstraint(["release"], ["release.id"], name=op.f("fk_rollout_release")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rollout")),
        sqlite_strict=True,
    )
    op.create_table(
        "rollout_event",
        sa.Column("rollout", Big, nullable=False),
        sa.Column("seq", Big, nullable=False),
        sa.Column("at_ms", Big, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("src", sa.Text(), nullable=False),
        sa.Column("dst", sa.Text(), nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("lease_epoch", Big, nullable=False),
        sa.ForeignKeyConstraint(["rollout"], ["rollout.id"], name=op.f("fk_rollout_event_rollout")),
        sa.PrimaryKeyConstraint("rollout", "seq", name=op.f("pk_rollout_event")),
        sqlite_strict=True,
    )
    op.create_table(
        "rollout_grant",
        sa.Column("rollout", Big, nullable=False),
        sa.Column("node", Big, nullable=False),
        sa.Column("phase", Big, nullable=False),
        sa.Column("at_ms", Big, nullable=False),
        sa.Column("deployment", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("outcome_at_ms", Big, nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("counted", sa.Text(), nullable=False),
        sa.Column("late", sa.Text(), server_default="", nullable=False),
        sa.ForeignKeyConstraint(["node"], ["node.id"], name=op.f("fk_rollout_grant_node")),
        sa.ForeignKeyConstraint(["rollout"], ["rollout.id"], name=op.f("fk_rollout_grant_rollout")),
        sa.PrimaryKeyConstraint("rollout", "node", name=op.f("pk_rollout_grant")),
        sqlite_strict=True,
    )
    op.create_table(
        "lease",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("epoch", Big, nullable=False),
        sa.Column("until_ms", Big, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_lease")),
        sqlite_strict=True,
    )
    op.create_index("ix_rollout_is_open", "rollout", ["is_open"], unique=False)
    op.create_index("ix_rollout_grant_deployment", "rollout_grant", ["deployment"], unique=True)
    op.create_index(
        "ix_rollout_grant_in_flight",
        "rollout_grant",
        ["rollout", "at_ms"],
        unique=False,
        sqlite_where=sa.text("outcome IS NULL"),
        postgresql_where=sa.text("outcome IS NULL"),
    )
    op.create_index(
        "ix_rollout_grant_news",
        "rollout_grant",
        ["rollout"],
        unique=False,
        sqlite_where=sa.text("outcome IS NOT NULL AND (counted<>outcome OR late<>'')"),
        postgresql_where=sa.text("outcome IS NOT NULL AND (counted<>outcome OR late<>'')"),
    )


def _telling() -> None:
    op.create_table(
        "webhook",
        sa.Column("id", Big, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("kinds", sa.Text(), nullable=False),
        sa.Column("created_at_ms", Big, nullable=False),
        sa.Column("disabled_at_ms", Big, nullable=True),
        sa.Column("disabled_why", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook")),
        sa.UniqueConstraint("name", name=op.f("uq_webhook_name")),
        sqlite_strict=True,
    )
    op.create_table(
        "outbox",
        sa.Column("id", Big, nullable=False),
        sa.Column("at_ms", Big, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
        sqlite_strict=True,
    )
    op.create_table(
        "delivery",
        sa.Column("webhook", Big, nullable=False),
        sa.Column("event", Big, nullable=False),
        sa.Column("queued_at_ms", Big, nullable=False),
        sa.Column("attempts", Big, nullable=False),
        sa.Column("next_at_ms", Big, nullable=True),
        sa.Column("done_at_ms", Big, nullable=True),
        sa.Column("status", Big, nullable=True),
        sa.Column("problem", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["event"], ["outbox.id"], name=op.f("fk_delivery_event")),
        sa.ForeignKeyConstraint(["webhook"], ["webhook.id"], name=op.f("fk_delivery_webhook")),
        sa.PrimaryKeyConstraint("webhook", "event", name=op.f("pk_delivery")),
        sqlite_strict=True,
    )
    op.create_table(
        "api_token",
        sa.Column("id", Big, nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("created_at_ms", Big, nullable=False),
        sa.Column("expires_at_ms", Big, nullable=True),
        sa.Column("revoked_at_ms", Big, nullable=True),
        sa.Column("used_at_ms", Big, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_token")),
        sa.UniqueConstraint("hash", name=op.f("uq_api_token_hash")),
        sqlite_strict=True,
    )
    op.create_index("ix_outbox_at_ms", "outbox", ["at_ms"], unique=False)
    op.create_index("ix_delivery_due", "delivery", ["next_at_ms"], unique=False)
    op.create_index("ix_delivery_event", "delivery", ["event"], unique=False)
