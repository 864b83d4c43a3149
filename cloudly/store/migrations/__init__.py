"""Alembic's migrations, run in process by `cloudly.store.migrate`."""
