"""A target may be withdrawn: `desired` has a generation and no deployment then."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

Big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """SQLite cannot drop a NOT NULL: the table is made anew and filled from the old one."""
    if op.get_context().dialect.name != "sqlite":
        op.alter_column("desired", "deployment", nullable=True)
        return
    op.rename_table("desired", "desired_before")
    op.create_table(
        "desired",
        sa.Column("node", Big, nullable=False),
        sa.Column("generation", Big, nullable=False),
        sa.Column("deployment", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["deployment"], ["deployment.deployment"], name=op.f("fk_desired_deployment")
        ),
        sa.ForeignKeyConstraint(["node"], ["node.id"], name=op.f("fk_desired_node")),
        sa.PrimaryKeyConstraint("node", name=op.f("pk_desired")),
        sqlite_strict=True,
    )
    op.execute(
        "INSERT INTO desired(node, generation, deployment)"
        " SELECT node, generation, deployment FROM desired_before"
    )
    op.drop_table("desired_before")
