"""The database: schema and migrations by SQLAlchemy and Alembic, every other sentence by hand.

Rules:
- One transaction per decision; several decisions share one COMMIT (`group.py`).
- SQL through SQLAlchemy costs 11.5 times the CPU of these sentences on the device path, so it describes the tables.
"""
