"""Nodes and their fleets; what changes with a heartbeat is in tables of its own."""

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

node = table(
    "node",
    sa.Column("id", Big, primary_key=True),  # also the balena device id
    sa.Column("node_id", sa.Text, nullable=False, unique=True),
    text("hostname"),
    text("device_type"),
    text("agent_version"),
    integer("created_at_ms"),
    integer("revoked_at_ms", nullable=True),
    text("needs_operator", nullable=True),
    sa.Column("last_good", Big, sa.ForeignKey("release.id"), nullable=True),
    added_integer("fleet", "1"),
    added_text("labels", "{}"),
    integer("quarantined_at_ms", nullable=True),
    text("quarantine", nullable=True),  # by whom and why: JSON
    integer("retired_at_ms", nullable=True),
    text("retirement", nullable=True),  # by whom and why: JSON
    sa.Index("ix_node_fleet", "fleet"),
)
fleet = table(
    "fleet",
    sa.Column("id", Big, primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    integer("created_at_ms"),
    sa.Column("release", Big, sa.ForeignKey("release.id"), nullable=True),
    text("policy", nullable=True),
    integer("channel", nullable=True),  # that it follows: then `release` is NULL
)  # the first is where nodes are that nobody has put elsewhere
device = table(
    "device",
    of_node(),
    digest("key_hash", unique=True),
    integer("registered_at_ms"),
    text("info"),
    text("report", nullable=True),  # all that it has reported, its differences merged
    integer("report_at_ms", nullable=True),
    integer("seen_at_ms", nullable=True),  # its last request
    added_text("name"),  # as the device calls itself
    digest("api_secret_hash", nullable=True),  # of the key of its own API, which nobody here needs
)
device_config = table(
    "device_config",
    of_node(),
    sa.Column("name", sa.Text, primary_key=True),
    text("value"),
)  # what a Supervisor found to be set on its host: given back to it in its target
device_tag = table(
    "device_tag",
    sa.Column("id", Big, primary_key=True),
    of_node(key=False),
    text("key"),
    text("value"),
    sa.UniqueConstraint("node", "key"),
)
diagnosis = table(
    "diagnosis",
    sa.Column("id", sa.Text, primary_key=True),
    of_node(key=False),
    integer("asked_at_ms"),
    integer("answered_at_ms", nullable=True),
    text("answer", nullable=True),
    sa.Index("ix_diagnosis_node", "node", "answered_at_ms"),
)
node_live = table(
    "node_live",
    of_node(),
    integer("last_seen_at_ms"),
    integer("observed_generation"),
    digest("stable_hash"),
)
node_status = table("node_status", of_node(), text("reported"))
