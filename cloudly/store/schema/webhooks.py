"""Who is told of what, and whether he was."""

from __future__ import annotations

import sqlalchemy as sa

from cloudly.store.schema.columns import Big, integer, table, text

webhook = table(
    "webhook",
    sa.Column("id", Big, primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    text("url"),
    text("kinds"),  # JSON: which events it wants; [] is all
    integer("created_at_ms"),
    integer("disabled_at_ms", nullable=True),
    text("disabled_why"),
)  # its secret is in a file of the data directory, as all secrets that are needed in full
outbox = table(
    "outbox",
    sa.Column("id", Big, primary_key=True),
    integer("at_ms"),
    text("kind"),
    text("data"),
    sa.Index("ix_outbox_at_ms", "at_ms"),
)
delivery = table(
    "delivery",
    sa.Column("webhook", Big, sa.ForeignKey("webhook.id"), primary_key=True),
    sa.Column("event", Big, sa.ForeignKey("outbox.id"), primary_key=True),
    integer(
        "queued_at_ms"
    ),  # when it was to be told, or told again: what is given up counts from there
    integer("attempts"),
    integer("next_at_ms", nullable=True),  # NULL: delivered, or given up
    integer("done_at_ms", nullable=True),
    integer("status", nullable=True),
    text("problem"),
    sa.Index("ix_delivery_due", "next_at_ms"),
    sa.Index("ix_delivery_event", "event"),  # what an event that is let go would leave behind
)
