"""The tables, as SQLAlchemy Core metadata: what Alembic migrates to and a test compares with.

Rules:
- Hot and cold columns live in different tables: a heartbeat that changes nothing writes nothing.
- The journal is chunk rows: one append-only row per accepted batch; everything else about it is a projection.
- Times are milliseconds since 1970 UTC.
"""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

Big = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def _table(name: str, *columns: sa.schema.SchemaItem) -> sa.Table:
    return sa.Table(name, metadata, *columns, sqlite_strict=True)


def _text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=nullable)


def _added_text(name: str, default: str = "") -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False, server_default=default)


def _int(name: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, Big, nullable=nullable)


def _added_int(name: str, default: str) -> sa.Column[int]:
    return sa.Column(name, Big, nullable=False, server_default=default)


def _hash(name: str, *, nullable: bool = False, unique: bool = False) -> sa.Column[bytes]:
    return sa.Column(name, sa.LargeBinary, nullable=nullable, unique=unique)


def _node(*, key: bool = True) -> sa.Column[int]:
    return sa.Column("node", Big, sa.ForeignKey("node.id"), primary_key=key, nullable=False)


meta = _table("meta", sa.Column("key", sa.Text, primary_key=True), _text("value"))

# -- who may enroll, and who did
join_token = _table(
    "join_token",
    sa.Column("id", Big, primary_key=True),
    _hash("hash", unique=True),
    _text("name"),
    _int("uses"),
    _int("uses_left"),
    _int("created_at_ms"),
    _int("expires_at_ms", nullable=True),
    _int("revoked_at_ms", nullable=True),
    _added_int("fleet", "1"),
    _added_text("labels", "{}"),  # which its nodes come with
)
join_use = _table(
    "join_use",
    sa.Column("token", Big, sa.ForeignKey("join_token.id"), primary_key=True),
    _node(),
    _hash("secret_hash", nullable=True),
    _hash("device_key_hash", nullable=True),
    _int("at_ms"),  # of the half that came first
    _int("agent_at_ms", nullable=True),
    _int("supervisor_at_ms", nullable=True),
)

# -- nodes: cold
node = _table(
    "node",
    sa.Column("id", Big, primary_key=True),  # also the balena device id
    sa.Column("node_id", sa.Text, nullable=False, unique=True),
    _text("hostname"),
    _text("device_type"),
    _text("agent_version"),
    _int("created_at_ms"),
    _int("revoked_at_ms", nullable=True),
    _text("needs_operator", nullable=True),
    sa.Column("last_good", Big, sa.ForeignKey("release.id"), nullable=True),
    _added_int("fleet", "1"),
    _added_text("labels", "{}"),
    _int("quarantined_at_ms", nullable=True),
    _text("quarantine", nullable=True),  # by whom and why: JSON
    _int("retired_at_ms", nullable=True),
    _text("retirement", nullable=True),  # by whom and why: JSON
    sa.Index("ix_node_fleet", "fleet"),
)
fleet = _table(
    "fleet",
    sa.Column("id", Big, primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    _int("created_at_ms"),
    sa.Column("release", Big, sa.ForeignKey("release.id"), nullable=True),
    _text("policy", nullable=True),
    _int("channel", nullable=True),  # that it follows: then `release` is NULL
)  # the first is where nodes are that nobody has put elsewhere
credential = _table(
    "credential",
    _node(),
    _hash("token_hash", unique=True),
    _int("generation"),
    _hash("secret_hash"),
    _text("nonce"),
    _int("still_open"),
    _int("enrolled_at_ms"),
    _int("rotate_asked_at_ms", nullable=True),
    _hash("next_hash", nullable=True),  # of the node token that the device drew to follow this one
    _int("rotated_at_ms", nullable=True),
    sa.Index("ix_credential_next_hash", "next_hash", unique=True),
)
former_token = _table(
    "former_token",
    sa.Column("hash", sa.LargeBinary, primary_key=True),
    sa.Column("node", Big, sa.ForeignKey("node.id"), nullable=False),
)  # node tokens that a later enrollment replaced: who still has one is told so
device = _table(
    "device",
    _node(),
    _hash("key_hash", unique=True),
    _int("registered_at_ms"),
    _text("info"),
    _text("report", nullable=True),  # all that it has reported, its differences merged
    _int("report_at_ms", nullable=True),
    _int("seen_at_ms", nullable=True),  # its last request
    _added_text("name"),  # as the device calls itself
    _hash("api_secret_hash", nullable=True),  # of the key of its own API, which nobody here needs
)
device_config = _table(
    "device_config",
    _node(),
    sa.Column("name", sa.Text, primary_key=True),
    _text("value"),
)  # what a Supervisor found to be set on its host: given back to it in its target
device_tag = _table(
    "device_tag",
    sa.Column("id", Big, primary_key=True),
    _node(key=False),
    _text("key"),
    _text("value"),
    sa.UniqueConstraint("node", "key"),
)
diagnosis = _table(
    "diagnosis",
    sa.Column("id", sa.Text, primary_key=True),
    _node(key=False),
    _int("asked_at_ms"),
    _int("answered_at_ms", nullable=True),
    _text("answer", nullable=True),
    sa.Index("ix_diagnosis_node", "node", "answered_at_ms"),
)

# -- nodes: hot
node_live = _table(
    "node_live",
    _node(),
    _int("last_seen_at_ms"),
    _int("observed_generation"),
    _hash("stable_hash"),
)
node_status = _table("node_status", _node(), _text("reported"))

# -- journals
epoch = _table(
    "epoch",
    _node(),
    sa.Column("n", Big, primary_key=True),
    _text("epoch"),
    _int("began_at_ms"),
    _added_text("why"),  # first, enrolled, unannounced, or the device's word
    _added_text("predecessor"),  # the epoch that it follows, by the device's word
    _added_text("problem"),
    _added_text("kept_in"),
    _added_text(
        "branch", "[]"
    ),  # what the device lost of its own where other facts are here: JSON as of `gaps`
    _int("carried_core", nullable=True),  # up to which seq its facts are copies
    _int("carried_log", nullable=True),
    _int("closed_at_ms", nullable=True),
    sa.UniqueConstraint("node", "epoch"),
)
lane = _table(
    "lane",
    _node(),
    sa.Column("epoch_n", Big, primary_key=True),
    sa.Column("lane", sa.Text, primary_key=True),
    _int("ack_seq"),
    _hash("ack_hash"),
    _int("head_seq"),  # the furthest head that was ever heard of
    _hash("head_hash", nullable=True),
    _text("head_writer", nullable=True),
    _int("prior_seq", nullable=True),  # what another writer had named before, not reached yet
    _hash("prior_hash", nullable=True),
)
lane_gap = _table(
    "lane_gap",
    _node(),
    sa.Column("epoch_n", Big, primary_key=True),
    sa.Column("lane", sa.Text, primary_key=True),
    sa.Column("first_seq", Big, primary_key=True),
    _int("last_seq"),
    _int("at_ms"),
    sa.Column("why", sa.Text, nullable=False, server_default="unexplained"),
    sa.Column("kinds", sa.Text, nullable=False, server_default="{}"),
    _int("since_ms", nullable=True),
    _int("until_ms", nullable=True),
    _hash("last_hash", nullable=True),  # of the fact at last_seq: what the next is chained to
    _int("at_n", nullable=True),  # before this place among the facts; NULL: at the epoch's end
)
journal_chunk = _table(
    "journal_chunk",
    sa.Column("id", Big, primary_key=True),
    _node(key=False),
    _int("epoch_n"),
    _text("lane"),
    _int("first_seq"),
    _int("last_seq"),
    _int("received_at_ms"),
    _int("opaque"),  # how many of its events could not be decoded
    _text("events"),
    _int("first_n", nullable=True),  # places among the facts of both lanes, growing within a lane
    _int("last_n", nullable=True),
    sa.Column("quiet", Big, nullable=False, server_default="0"),  # nothing but heartbeats
    sa.UniqueConstraint("node", "epoch_n", "lane", "first_seq"),
    sa.Index("ix_journal_chunk_story", "node", "epoch_n", "lane", "quiet", "first_n"),
)

# -- who speaks as a node
voice = _table(
    "voice",
    _node(),
    _int("epoch_n"),
    _text("epoch"),
    _text("writer", nullable=True),
    _int("since_ms"),
)
superseded = _table(
    "superseded",
    _node(),
    sa.Column("writer", sa.Text, primary_key=True),
    _int("at_ms"),
    _int("seen_at_ms"),
    _text("boot_id", nullable=True),
    _int("uptime_ms", nullable=True),
)
fence = _table(
    "fence",
    _node(),
    _int("count"),
    _int("first_at_ms"),
    _int("last_at_ms"),
    _int("alarm"),
    _text("told"),
)

# -- projections of journals
transition = _table(
    "transition",
    _node(),
    sa.Column("epoch_n", Big, primary_key=True),
    sa.Column("n", Big, primary_key=True),
    _int("seq"),
    _int("at_ms"),
    _int("received_at_ms"),
    _text("stream"),
    _text("kind"),
    _text("src"),
    _text("dst"),
    _text("reason"),
)
stream = _table(
    "stream",
    _node(),
    sa.Column("epoch_n", Big, primary_key=True),
    sa.Column("stream", sa.Text, primary_key=True),
    _int("n"),
    _text("lane"),
    _text("state"),
    _text("kind"),
    _int("at_ms"),
    _text("deployment", nullable=True),
)

# -- releases and what is wanted
release = _table(
    "release",
    sa.Column("id", Big, primary_key=True),  # also the balena release id
    sa.Column("commit_id", sa.Text, nullable=False, unique=True),
    _text("version"),
    _int("created_at_ms"),
    _added_text("volumes", "{}"),
    _added_text("networks", "{}"),
    _text("compose", nullable=True),  # the document that it was made from, as it came
)
service = _table(
    "service",
    sa.Column("id", Big, primary_key=True),  # also the balena service id
    sa.Column("name", sa.Text, nullable=False, unique=True),
)
release_service = _table(
    "release_service",
    sa.Column("id", Big, primary_key=True),  # also the balena image id
    sa.Column("release", Big, sa.ForeignKey("release.id"), nullable=False),
    sa.Column("service", Big, sa.ForeignKey("service.id"), nullable=False),
    _text("image"),
    _text("labels"),
    _added_text("environment", "{}"),
    _added_text("composition", '{"restart":"always"}'),
    sa.UniqueConstraint("release", "service"),
)
deployment = _table(
    "deployment",
    sa.Column("deployment", sa.Text, primary_key=True),
    _node(key=False),
    sa.Column("release", Big, sa.ForeignKey("release.id"), nullable=False),
    _int("generation"),
    _text("policy"),
    _text("rollback_of", nullable=True),
    _int("ordered_at_ms"),
    _text("state"),
    _int("state_at_ms", nullable=True),
    _text("reason"),
    _int("needs_rollback"),
    _int("closed"),
    _int("rollout", nullable=True),  # that gave the order; NULL: a person or a rollback did
    _added_text("actor"),  # whose order it was
    sa.UniqueConstraint("node", "generation"),
)
desired = _table(
    "desired",
    _node(),
    _int("generation"),
    sa.Column(
        "deployment", sa.Text, sa.ForeignKey("deployment.deployment"), nullable=True
    ),  # NULL: withdrawn
)
never_again = _table(
    "never_again",
    _node(),
    sa.Column("release", Big, sa.ForeignKey("release.id"), primary_key=True),
    sa.Column("deployment", sa.Text, sa.ForeignKey("deployment.deployment"), nullable=False),
    _text("reason"),
    _int("at_ms"),
)

# -- what may run where
channel = _table(
    "channel",
    sa.Column("id", Big, primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    _int("created_at_ms"),
    _int("approvals"),  # how many persons must have said yes before a release is published there
    _int("second_person"),  # 1: who published it there may not be the only one who approved it
)
channel_release = _table(
    "channel_release",
    sa.Column("channel", Big, sa.ForeignKey("channel.id"), primary_key=True),
    sa.Column("seq", Big, primary_key=True),  # order within the channel: which release is newer
    sa.Column("release", Big, sa.ForeignKey("release.id"), nullable=False),
    _int("proposed_at_ms"),
    _text("proposed_by"),
    _int("published_at_ms", nullable=True),
    _int("withdrawn_at_ms", nullable=True),
    _text("withdrawn", nullable=True),  # by whom and why: JSON
    _int("is_floor"),  # 1: no upgrade may skip it
    _text("note"),
    sa.UniqueConstraint("channel", "release"),
)
approval = _table(
    "approval",
    sa.Column("id", Big, primary_key=True),
    sa.Column("channel", Big, sa.ForeignKey("channel.id"), nullable=False),
    sa.Column("release", Big, sa.ForeignKey("release.id"), nullable=False),
    _text("actor"),
    _int("at_ms"),
    _text("decision"),  # approved | refused
    _text("note"),
    sa.UniqueConstraint("channel", "release", "actor"),
)
pin = _table(
    "pin",
    sa.Column("scope", sa.Text, primary_key=True),  # node | fleet
    sa.Column("scope_id", Big, primary_key=True),
    sa.Column("release", Big, sa.ForeignKey("release.id"), nullable=True),  # NULL: whatever it runs
    _text("actor"),
    _text("reason"),
    _int("at_ms"),
    _int("until_ms", nullable=True),
)
ban = _table(
    "ban",
    sa.Column("digest", sa.Text, primary_key=True),  # of an image, or the commit of a release
    _text("actor"),
    _text("reason"),
    _int("at_ms"),
)

# -- what people did
audit = _table(
    "audit",
    sa.Column("id", Big, primary_key=True),
    _int("at_ms"),
    _text("actor"),
    _text("act"),
    _text("object"),  # kind/name, like channel/stable
    _text("data"),
    sa.Index("ix_audit_object", "object", "id"),
)

# -- rollouts: a stream of facts each, and what is counted of it
rollout = _table(
    "rollout",
    sa.Column("id", Big, primary_key=True),
    sa.Column("release", Big, sa.ForeignKey("release.id"), nullable=False),
    _text("plan"),
    _text("policy"),  # of the deployments that it orders
    _text("state"),  # as its last fact left it
    _int("seq"),
    _hash("hash"),
    _int("created_at_ms"),
    _int("is_open"),  # 1: not final
    sa.Index("ix_rollout_is_open", "is_open"),
)
rollout_event = _table(
    "rollout_event",
    sa.Column("rollout", Big, sa.ForeignKey("rollout.id"), primary_key=True),
    sa.Column("seq", Big, primary_key=True),
    _int("at_ms"),
    _text("kind"),
    _text("src"),
    _text("dst"),
    _text("data"),
    _hash("hash"),
    _int("lease_epoch"),
)
rollout_grant = _table(
    "rollout_grant",
    sa.Column("rollout", Big, sa.ForeignKey("rollout.id"), primary_key=True),
    _node(),
    _int("phase"),
    _int("at_ms"),
    _text("deployment"),
    _text("outcome", nullable=True),
    _int("outcome_at_ms", nullable=True),
    _text("reason"),
    _text("counted"),  # the outcome that the rollout's facts have counted; empty: in flight
    _added_text(
        "late"
    ),  # another outcome that the node told afterwards, and that no fact tells yet
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
lease = _table(
    "lease",
    sa.Column("name", sa.Text, primary_key=True),
    _text("owner"),
    _int("epoch"),  # grows with each owner: what an older one still writes is refused
    _int("until_ms"),
)

# -- who is told
webhook = _table(
    "webhook",
    sa.Column("id", Big, primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    _text("url"),
    _text("kinds"),  # JSON: which events it wants; [] is all
    _int("created_at_ms"),
    _int("disabled_at_ms", nullable=True),
    _text("disabled_why"),
)  # its secret is in a file of the data directory, as all secrets that are needed in full
outbox = _table(
    "outbox",
    sa.Column("id", Big, primary_key=True),
    _int("at_ms"),
    _text("kind"),
    _text("data"),
    sa.Index("ix_outbox_at_ms", "at_ms"),
)
delivery = _table(
    "delivery",
    sa.Column("webhook", Big, sa.ForeignKey("webhook.id"), primary_key=True),
    sa.Column("event", Big, sa.ForeignKey("outbox.id"), primary_key=True),
    _int(
        "queued_at_ms"
    ),  # when it was to be told, or told again: what is given up counts from there
    _int("attempts"),
    _int("next_at_ms", nullable=True),  # NULL: delivered, or given up
    _int("done_at_ms", nullable=True),
    _int("status", nullable=True),
    _text("problem"),
    sa.Index("ix_delivery_due", "next_at_ms"),
    sa.Index("ix_delivery_event", "event"),  # what an event that is let go would leave behind
)
api_token = _table(
    "api_token",
    sa.Column("id", Big, primary_key=True),
    _hash("hash", unique=True),
    _text("name"),
    _text("role"),  # viewer | operator | approver | admin
    _int("created_at_ms"),
    _int("expires_at_ms", nullable=True),
    _int("revoked_at_ms", nullable=True),
    _int("used_at_ms", nullable=True),
)
