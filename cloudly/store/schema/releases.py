"""Releases, and which of them is wanted where."""

from __future__ import annotations

import sqlalchemy as sa

from cloudly.store.schema.columns import Big, added_text, integer, of_node, table, text

release = table(
    "release",
    sa.Column("id", Big, primary_key=True),  # also the balena release id
    sa.Column("commit_id", sa.Text, nullable=False, unique=True),
    text("version"),
    integer("created_at_ms"),
    added_text("volumes", "{}"),
    added_text("networks", "{}"),
    text("compose", nullable=True),  # the document that it was made from, as it came
)
service = table(
    "service",
    sa.Column("id", Big, primary_key=True),  # also the balena service id
    sa.Column("name", sa.Text, nullable=False, unique=True),
)
release_service = table(
    "release_service",
    sa.Column("id", Big, primary_key=True),  # also the balena image id
    sa.Column("release", Big, sa.ForeignKey("release.id"), nullable=False),
    sa.Column("service", Big, sa.ForeignKey("service.id"), nullable=False),
    text("image"),
    text("labels"),
    added_text("environment", "{}"),
    added_text("composition", '{"restart":"always"}'),
    sa.UniqueConstraint("release", "service"),
)
deployment = table(
    "deployment",
    sa.Column("deployment", sa.Text, primary_key=True),
    of_node(key=False),
    sa.Column("release", Big, sa.ForeignKey("release.id"), nullable=False),
    integer("generation"),
    text("policy"),
    text("rollback_of", nullable=True),
    integer("ordered_at_ms"),
    text("state"),
    integer("state_at_ms", nullable=True),
    text("reason"),
    integer("needs_rollback"),
    integer("closed"),
    integer("rollout", nullable=True),  # that gave the order; NULL: a person or a rollback did
    added_text("actor"),  # whose order it was
    sa.UniqueConstraint("node", "generation"),
)
desired = table(
    "desired",
    of_node(),
    integer("generation"),
    sa.Column(
        "deployment", sa.Text, sa.ForeignKey("deployment.deployment"), nullable=True
    ),  # NULL: withdrawn
)
never_again = table(
    "never_again",
    of_node(),
    sa.Column("release", Big, sa.ForeignKey("release.id"), primary_key=True),
    sa.Column("deployment", sa.Text, sa.ForeignKey("deployment.deployment"), nullable=False),
    text("reason"),
    integer("at_ms"),
)
