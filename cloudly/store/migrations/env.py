"""Alembic's environment: one open connection in one transaction, handed in by `cloudly.store.migrate`."""

from __future__ import annotations

from alembic import context

from cloudly.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
