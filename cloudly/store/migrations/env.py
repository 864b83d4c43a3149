"""Alembic's environment: one open connection in one transaction, handed in by `cloudly.store.migrate`."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import context
from sqlalchemy.ext.compiler import compiles

from cloudly.store.schema import metadata


@compiles(sa.Text, "postgresql")
def _by_code_point(_type: sa.Text, _compiler: Any, **_options: Any) -> str:
    """Texts are compared as SQLite compares them, whatever the language of the database is."""
    return 'TEXT COLLATE "C"'


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
