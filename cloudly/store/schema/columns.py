"""What the tables are made of: types that both engines have, and how their constraints are called."""

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


def table(name: str, *columns: sa.schema.SchemaItem) -> sa.Table:
    return sa.Table(name, metadata, *columns, sqlite_strict=True)


def text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=nullable)


def added_text(name: str, default: str = "") -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False, server_default=default)


def integer(name: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, Big, nullable=nullable)


def added_integer(name: str, default: str) -> sa.Column[int]:
    return sa.Column(name, Big, nullable=False, server_default=default)


def digest(name: str, *, nullable: bool = False, unique: bool = False) -> sa.Column[bytes]:
    return sa.Column(name, sa.LargeBinary, nullable=nullable, unique=unique)


def of_node(*, key: bool = True) -> sa.Column[int]:
    return sa.Column("node", Big, sa.ForeignKey("node.id"), primary_key=key, nullable=False)
