"""The tables, as SQLAlchemy Core metadata: what Alembic migrates to and a test compares with.

Rules:
- Hot and cold columns live in different tables: a heartbeat that changes nothing writes nothing.
- The journal is chunk rows: one append-only row per accepted batch; everything else about it is a projection.
- Times are milliseconds since 1970 UTC.
"""

from cloudly.store.schema import (
    governance,
    journals,
    nodes,
    releases,
    rollouts,
    servers,
    tokens,
    webhooks,
)
from cloudly.store.schema.columns import metadata

__all__ = [
    "governance",
    "journals",
    "metadata",
    "nodes",
    "releases",
    "rollouts",
    "servers",
    "tokens",
    "webhooks",
]
