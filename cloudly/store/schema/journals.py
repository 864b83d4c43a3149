"""The journals of the nodes as they came, who speaks as a node, and what is read out of them."""

from __future__ import annotations

import sqlalchemy as sa

from cloudly.store.schema.columns import Big, added_text, digest, integer, of_node, table, text

epoch = table(
    "epoch",
    of_node(),
    sa.Column("n", Big, primary_key=True),
    text("epoch"),
    integer("began_at_ms"),
    added_text("why"),  # first, enrolled, unannounced, or the device's word
    added_text("predecessor"),  # the epoch that it follows, by the device's word
    added_text("problem"),
    added_text("kept_in"),
    added_text(
        "branch", "[]"
    ),  # what the device lost of its own where other facts are here: JSON as of `gaps`
    integer("carried_core", nullable=True),  # up to which seq its facts are copies
    integer("carried_log", nullable=True),
    integer("closed_at_ms", nullable=True),
    sa.UniqueConstraint("node", "epoch"),
)
lane = table(
    "lane",
    of_node(),
    sa.Column("epoch_n", Big, primary_key=True),
    sa.Column("lane", sa.Text, primary_key=True),
    integer("ack_seq"),
    digest("ack_hash"),
    integer("head_seq"),  # the furthest head that was ever heard of
    digest("head_hash", nullable=True),
    text("head_writer", nullable=True),
    integer("prior_seq", nullable=True),  # what another writer had named before, not reached yet
    digest("prior_hash", nullable=True),
)
lane_gap = table(
    "lane_gap",
    of_node(),
    sa.Column("epoch_n", Big, primary_key=True),
    sa.Column("lane", sa.Text, primary_key=True),
    sa.Column("first_seq", Big, primary_key=True),
    integer("last_seq"),
    integer("at_ms"),
    sa.Column("why", sa.Text, nullable=False, server_default="unexplained"),
    sa.Column("kinds", sa.Text, nullable=False, server_default="{}"),
    integer("since_ms", nullable=True),
    integer("until_ms", nullable=True),
    digest("last_hash", nullable=True),  # of the fact at last_seq: what the next is chained to
    integer("at_n", nullable=True),  # before this place among the facts; NULL: at the epoch's end
)
journal_chunk = table(
    "journal_chunk",
    sa.Column("id", Big, primary_key=True),
    of_node(key=False),
    integer("epoch_n"),
    text("lane"),
    integer("first_seq"),
    integer("last_seq"),
    integer("received_at_ms"),
    integer("opaque"),  # how many of its events could not be decoded
    text("events"),
    integer(
        "first_n", nullable=True
    ),  # places among the facts of both lanes, growing within a lane
    integer("last_n", nullable=True),
    sa.Column("quiet", Big, nullable=False, server_default="0"),  # nothing but heartbeats
    sa.UniqueConstraint("node", "epoch_n", "lane", "first_seq"),
    sa.Index("ix_journal_chunk_story", "node", "epoch_n", "lane", "quiet", "first_n"),
)
voice = table(
    "voice",
    of_node(),
    integer("epoch_n"),
    text("epoch"),
    text("writer", nullable=True),
    integer("since_ms"),
)
superseded = table(
    "superseded",
    of_node(),
    sa.Column("writer", sa.Text, primary_key=True),
    integer("at_ms"),
    integer("seen_at_ms"),
    text("boot_id", nullable=True),
    integer("uptime_ms", nullable=True),
)
fence = table(
    "fence",
    of_node(),
    integer("count"),
    integer("first_at_ms"),
    integer("last_at_ms"),
    integer("alarm"),
    text("told"),
)
transition = table(
    "transition",
    of_node(),
    sa.Column("epoch_n", Big, primary_key=True),
    sa.Column("n", Big, primary_key=True),
    integer("seq"),
    integer("at_ms"),
    integer("received_at_ms"),
    text("stream"),
    text("kind"),
    text("src"),
    text("dst"),
    text("reason"),
)
stream = table(
    "stream",
    of_node(),
    sa.Column("epoch_n", Big, primary_key=True),
    sa.Column("stream", sa.Text, primary_key=True),
    integer("n"),
    text("lane"),
    text("state"),
    text("kind"),
    integer("at_ms"),
    text("deployment", nullable=True),
)
