"""What the servers share: the database's own identity, and who of them leads."""

from __future__ import annotations

import sqlalchemy as sa

from cloudly.store.schema.columns import integer, table, text

meta = table("meta", sa.Column("key", sa.Text, primary_key=True), text("value"))
lease = table(
    "lease",
    sa.Column("name", sa.Text, primary_key=True),
    text("owner"),
    integer("epoch"),  # grows with each owner: what an older one still writes is refused
    integer("until_ms"),
)
