"""What may run where, by whose word, and what people did."""

from __future__ import annotations

import sqlalchemy as sa

from cloudly.store.schema.columns import Big, integer, table, text

channel = table(
    "channel",
    sa.Column("id", Big, primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    integer("created_at_ms"),
    integer("approvals"),  # how many persons must have said yes before a release is published there
    integer("second_person"),  # 1: who published it there may not be the only one who approved it
)
channel_release = table(
    "channel_release",
    sa.Column("channel", Big, sa.ForeignKey("channel.id"), primary_key=True),
    sa.Column("seq", Big, primary_key=True),  # order within the channel: which release is newer
    sa.Column("release", Big, sa.ForeignKey("release.id"), nullable=False),
    integer("proposed_at_ms"),
    text("proposed_by"),
    integer("published_at_ms", nullable=True),
    integer("withdrawn_at_ms", nullable=True),
    text("withdrawn", nullable=True),  # by whom and why: JSON
    integer("is_floor"),  # 1: no upgrade may skip it
    text("note"),
    sa.UniqueConstraint("channel", "release"),
)
approval = table(
    "approval",
    sa.Column("id", Big, primary_key=True),
    sa.Column("channel", Big, sa.ForeignKey("channel.id"), nullable=False),
    sa.Column("release", Big, sa.ForeignKey("release.id"), nullable=False),
    text("actor"),
    integer("at_ms"),
    text("decision"),  # approved | refused
    text("note"),
    sa.UniqueConstraint("channel", "release", "actor"),
)
pin = table(
    "pin",
    sa.Column("scope", sa.Text, primary_key=True),  # node | fleet
    sa.Column("scope_id", Big, primary_key=True),
    sa.Column("release", Big, sa.ForeignKey("release.id"), nullable=True),  # NULL: whatever it runs
    text("actor"),
    text("reason"),
    integer("at_ms"),
    integer("until_ms", nullable=True),
)
ban = table(
    "ban",
    sa.Column("digest", sa.Text, primary_key=True),  # of an image, or the commit of a release
    text("actor"),
    text("reason"),
    integer("at_ms"),
)
audit = table(
    "audit",
    sa.Column("id", Big, primary_key=True),
    integer("at_ms"),
    text("actor"),
    text("act"),
    text("object"),  # kind/name, like channel/stable
    text("data"),
    sa.Index("ix_audit_object", "object", "id"),
)
