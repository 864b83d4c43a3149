"""Where the database is: a `postgresql://` URL, whose password is in no error and no log."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

import asyncpg

from cloudly.problems import BadSettings

CONNECT_S = 10.0
COMMAND_S = 70.0
"""Above the server's own `statement_timeout`: only a server that is gone is given up here."""
EXAMPLE = "postgresql://cloudly:PASSWORD@db.example/cloudly"


@dataclass(frozen=True, slots=True)
class Address:
    url: str = field(repr=False)

    @classmethod
    def of(cls, url: str) -> Address:
        """Raises BadSettings, which holds nothing of it."""
        try:
            parts = urlsplit(url)
            fine = parts.scheme in {"postgresql", "postgres"} and len(parts.path) > 1
        except ValueError:
            fine = False
        if not fine:
            raise BadSettings(
                f"CLOUDLY_DATABASE_URL is malformed: it must be postgresql://USER@HOST/DATABASE; for example {EXAMPLE}"
            )
        return cls(url)

    def __str__(self) -> str:
        """Without user and password."""
        parts = urlsplit(self.url)
        host = parts.hostname or "local socket"
        return f"{host}{f':{parts.port}' if parts.port else ''}/{unquote(parts.path[1:])}"

    @property
    def sqlalchemy_url(self) -> str:
        return re.sub(r"^postgres(ql)?://", "postgresql+asyncpg://", self.url)

    async def connect(self, settings: dict[str, str]) -> asyncpg.Connection[Any]:
        """Raises what asyncpg raises; its messages name the host, the user and the database, never the password."""
        return await asyncpg.connect(
            self.url, timeout=CONNECT_S, command_timeout=COMMAND_S, server_settings=settings
        )
