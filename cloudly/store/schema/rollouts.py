"""Rollouts: a stream of facts each, and what is counted of it."""

from __future__ import annotations

import sqlalchemy as sa

from cloudly.store.schema.columns import Big, added_text, digest, integer, of_node, table, text

rollout = table(
    "rollout",
    sa.Column("id", Big, primary_key=True),
    sa.Column("release", Big, sa.ForeignKey("release.id"), nullable=False),
    text("plan"),
    text("policy"),  # of the deployments that it orders
    text("state"),  # as its last fact left it
    integer("seq"),
    digest("hash"),
    integer("created_at_ms"),
    integer("is_open"),  # 1: not final
    sa.Index("ix_rollout_is_open", "is_open"),
)
rollout_event = table(
    "rollout_event",
    sa.Column("rollout", Big, sa.ForeignKey("rollout.id"), primary_key=True),
    sa.Column("seq", Big, primary_key=True),
    integer("at_ms"),
    text("kind"),
    text("src"),
    text("dst"),
    text("data"),
    digest("hash"),
    integer("lease_epoch"),
)
rollout_grant = table(
    "rollout_grant",
    sa.Column("rollout", Big, sa.ForeignKey("rollout.id"), primary_key=True),
    of_node(),
    integer("phase"),
    integer("at_ms"),
    text("deployment"),
    text("outcome", nullable=True),
    integer("outcome_at_ms", nullable=True),
    text("reason"),
    text("counted"),  # the outcome that the rollout's facts have counted; empty: in flight
    added_text("late"),  # another outcome that the node told afterwards, and that no fact tells yet
    sa.Index("ix_rollout_grant_deployment", "deployment", unique=True),
    sa.Index(
        "ix_rollout_grant_in_flight",
        "rollout",
        "at_ms",
        sqlite_where=sa.text("outcome IS NULL"),
        postgresql_where=sa.text("outcome IS NULL"),
    ),
    sa.Index(
        "ix_rollout_grant_news",
        "rollout",
        sqlite_where=sa.text("outcome IS NOT NULL AND (counted<>outcome OR late<>'')"),
        postgresql_where=sa.text("outcome IS NOT NULL AND (counted<>outcome OR late<>'')"),
    ),
)
